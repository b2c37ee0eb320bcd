import pytest
import torch

from dreamer.algorithms.prediction import open_loop_prediction
from dreamer.replay import Batch
from tests.toys import FrameEnv, make_dreamer

B, T = 4, 8


@pytest.fixture
def model():
    return make_dreamer(FrameEnv(), "encoder.depth=2", "decoder.depth=2").model


@pytest.fixture
def batch(monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    flags = torch.zeros(B, T)
    flags[1, 6] = 1  # runs into another episode after the context
    flags[2, 2] = 1  # within it: the model is told
    pixels = torch.randint(256, (B, T, 3, 64, 64), dtype=torch.uint8)
    return Batch(pixels, torch.randn(B, T, 1), torch.zeros(B, T), flags, torch.zeros(B, T))


def test_leaves_out_windows_that_cross_an_episode_after_the_context(model, batch):
    truth, prediction, context = open_loop_prediction(model, batch)
    assert truth.shape == prediction.shape == (3, T, 3, 64, 64) and context == 5
    assert (truth == batch.observation[[0, 2, 3]]).all()
    assert len(open_loop_prediction(model, batch, sequences=2)[0]) == 2


def test_context_is_reconstructed_and_the_rest_imagined_with_the_real_actions(model, batch):
    _, prediction, context = open_loop_prediction(model, batch)
    _, posterior = model.observe(batch)
    reconstruction = model.restore(model.decoder(posterior.feature[[0, 2, 3]]).mean)
    assert (prediction[:, :context] == reconstruction[:, :context]).all()

    unseen = batch.observation.clone()
    unseen[:, context:] = 255
    assert (open_loop_prediction(model, batch._replace(observation=unseen))[1] == prediction).all()
    other = batch._replace(action=batch.action + 20 * (torch.arange(T) == context)[None, :, None])
    later = open_loop_prediction(model, other)[1]
    assert (later[:, :context] == prediction[:, :context]).all()
    assert (later[:, context] != prediction[:, context]).any(), "the action at an index leads to the frame there"


def test_nothing_to_show(model, batch):
    truth, _, _ = open_loop_prediction(model, batch._replace(is_first=torch.ones(B, T)))
    assert len(truth) == 0
