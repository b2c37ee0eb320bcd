import pytest
import torch

from dreamer.algorithms.prediction import open_loop_prediction
from dreamer.build import build_model
from dreamer.config import load_config
from dreamer.modules.pixels import restore_pixels
from dreamer.replay import Batch
from tests.toys import SMALL

B, T = 4, 8


@pytest.fixture
def model():
    torch.manual_seed(0)
    overrides = ["parameters.dreamer.encoder.depth=2", "parameters.dreamer.decoder.depth=2"]
    settings = load_config("dreamer", SMALL + overrides).parameters.dreamer
    return build_model(settings, observation_shape=(3, 64, 64), action_size=1)


@pytest.fixture
def batch(monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    flags = torch.zeros(B, T)
    flags[1, 6] = 1  # runs into another episode after the context
    flags[2, 2] = 1  # within it: the model is told
    return Batch(torch.rand(B, T, 3, 64, 64) - 0.5, torch.randn(B, T, 1), torch.zeros(B, T), flags, torch.zeros(B, T))


def test_leaves_out_windows_that_cross_an_episode_after_the_context(model, batch):
    truth, prediction, context = open_loop_prediction(model, batch, True)
    assert truth.shape == prediction.shape == (3, T, 3, 64, 64) and context == 5
    assert (truth == restore_pixels(batch.observation[[0, 2, 3]], True)).all()
    assert len(open_loop_prediction(model, batch, True, sequences=2)[0]) == 2


def test_context_is_reconstructed_and_the_rest_imagined_with_the_real_actions(model, batch):
    _, prediction, context = open_loop_prediction(model, batch, True)
    _, posterior = model.rssm.observe(model.encoder(batch.observation), batch.action, batch.is_first)
    reconstruction = restore_pixels(model.decoder(posterior.feature[[0, 2, 3]]).mean, True)
    assert (prediction[:, :context] == reconstruction[:, :context]).all()

    unseen = batch.observation.clone()
    unseen[:, context:] = 0.5
    assert (open_loop_prediction(model, batch._replace(observation=unseen), True)[1] == prediction).all()
    other = batch._replace(action=batch.action + 20 * (torch.arange(T) == context)[None, :, None])
    later = open_loop_prediction(model, other, True)[1]
    assert (later[:, :context] == prediction[:, :context]).all()
    assert (later[:, context] != prediction[:, context]).any(), "the action at an index leads to the frame there"


def test_nothing_to_show(model, batch):
    truth, _, _ = open_loop_prediction(model, batch._replace(is_first=torch.ones(B, T)), True)
    assert len(truth) == 0
