import pytest
import torch

from dreamer.algorithms.prediction import observe, open_loop_prediction
from dreamer.replay.step import Batch
from tests.toys import FrameEnv, make_dreamer

B, T = 4, 8


@pytest.fixture
def model():
    return make_dreamer(FrameEnv(), "encoder.depth=2", "decoder.depth=2").model


@pytest.fixture
def batch(monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    flags = torch.zeros(B, T)
    flags[1, 6] = 1  # a new episode after the context: the window is left out
    flags[2, 2] = 1  # a new episode within the context: the window is kept
    pixels = torch.randint(256, (B, T, 3, 64, 64), dtype=torch.uint8)
    zeros = torch.zeros(B, T)
    return Batch(pixels, torch.randn(B, T, 1), zeros, flags, zeros, torch.zeros(B, 0))


def test_windows_that_cross_an_episode_after_the_context_are_left_out(model, batch):
    truth, prediction, context = open_loop_prediction(model, batch)
    assert truth.shape == prediction.shape == (3, T, 3, 64, 64) and context == 5
    assert (truth == batch.observation[[0, 2, 3]]).all()
    assert len(open_loop_prediction(model, batch, sequences=2)[0]) == 2


def test_context_is_reconstructed_and_the_rest_imagined_with_replayed_actions(model, batch):
    _, prediction, context = open_loop_prediction(model, batch)
    kept = batch.action[[0, 2, 3]]
    posterior = observe(model, batch)[1].map(lambda part: part[[0, 2, 3], :context])
    expected = [posterior, model.rssm.imagine(posterior.last(), kept[:, context:])]
    frames = model.to_pixels(model.decoder(torch.cat([state.feature for state in expected], 1)).mean)
    assert (prediction == frames).all(), "the action at an index leads to the frame there"

    unseen = batch.observation.clone()
    unseen[:, context:] = 255
    assert (open_loop_prediction(model, batch._replace(observation=unseen))[1] == prediction).all()
    assert (prediction[:, context:] != prediction[:, [context - 1]]).any()


def test_result_is_empty_if_every_window_crosses_an_episode(model, batch):
    truth, _, _ = open_loop_prediction(model, batch._replace(is_first=torch.ones(B, T)))
    assert len(truth) == 0
