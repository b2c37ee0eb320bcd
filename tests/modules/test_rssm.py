import pytest
import torch

from dreamer.modules.latents import Gaussian, GaussianModel
from dreamer.modules.recurrent import RecurrentModel
from dreamer.modules.rssm import RSSM, State, stack

B, T, A, D, S, E = 3, 6, 2, 10, 4, 5
GAUSSIAN = {"hidden_size": 12, "num_layers": 1, "activation": "ELU", "min_std": 0.1}


@pytest.fixture
def rssm():
    torch.manual_seed(0)
    recurrent_model = RecurrentModel(S, D, A, hidden_size=12, activation="ELU")
    return RSSM(recurrent_model, GaussianModel(D, S, **GAUSSIAN), GaussianModel(D + E, S, **GAUSSIAN), (D, S))


@pytest.fixture
def windows():
    torch.manual_seed(1)
    return torch.randn(B, T, E), torch.randn(B, T, A), torch.zeros(B, T)


def random_state(batch_size=B):
    mean, std = torch.randn(batch_size, S), torch.rand(batch_size, S) + 0.1
    return State(torch.randn(batch_size, D), torch.randn(batch_size, S), Gaussian(mean, std))


def tensors(state):
    return [state.deterministic, state.stochastic, *state.parameters]


def test_state_views():
    state = stack([random_state() for _ in range(T)])
    assert state.feature.shape == (B, T, D + S) and state.flatten().feature.shape == (B * T, D + S)
    torch.testing.assert_close(state.feature[..., D:], state.stochastic)
    torch.testing.assert_close(state.flatten().feature[T + 2], state.feature[1, 2])
    torch.testing.assert_close(state.last().feature, state.feature[:, -1])
    torch.testing.assert_close(state.distribution.mean, state.parameters.mean)
    torch.testing.assert_close(state.distribution.scale, state.parameters.std)
    detached = state.map(torch.Tensor.requires_grad_).detach()
    assert not any(part.requires_grad for part in tensors(detached))


def test_states_are_float32_under_autocast(rssm):
    """All parts of the states are float32, in `imagine_step` and in `observe`."""
    state, action = random_state(), torch.randn(B, A)
    with torch.autocast("cpu", torch.bfloat16):
        from_autocast = rssm.imagine_step(state, action)
        observed = rssm.observe(torch.randn(B, T, E), torch.randn(B, T, A), torch.zeros(B, T))
    assert {part.dtype for each in (from_autocast, *observed) for part in tensors(each)} == {torch.float32}
    exact = rssm.imagine_step(state, action).deterministic
    assert 0 < (from_autocast.deterministic - exact).abs().max() < 0.02


def test_observe_step_repeated_equals_observe(rssm, windows):
    """Acting step by step gives the same posteriors and priors as training on the whole sequence."""
    embedding, action, is_first = windows
    is_first[:, 0], is_first[1, 3] = 1, 1
    torch.manual_seed(2)
    prior, posterior = rssm.observe(embedding, action, is_first)
    torch.manual_seed(2)
    state = rssm.initial_state(B)
    for t in range(T):
        keep = (1 - is_first[:, t])[:, None]
        before = rssm.restored(state.feature * keep)
        state = rssm.observe_step(state, action[:, t], embedding[:, t], is_first[:, t])
        torch.testing.assert_close(tensors(state), [part[:, t] for part in tensors(posterior)])
        with torch.random.fork_rng():
            one_step_prior = rssm.imagine_step(before, action[:, t] * keep)
        torch.testing.assert_close(one_step_prior.parameters, Gaussian(*(part[:, t] for part in prior.parameters)))


@pytest.mark.parametrize("start", [0, 3])
def test_is_first_resets_the_state_and_the_action(rssm, windows, start, monkeypatch):
    """With is_first = 1 the result equals that of a sequence that begins there. Without it, earlier steps have an
    effect."""
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    embedding, action, is_first = windows
    observed = rssm.observe(embedding, action, is_first)[1].feature[:, start:]
    actions_from_start = action[:, start:].clone()
    actions_from_start[:, 0] = 0
    from_start = rssm.observe(embedding[:, start:], actions_from_start, is_first[:, start:])[1].feature
    assert (observed - from_start).abs().amax((1, 2)).min() > 1e-3
    is_first[:, start] = 1
    torch.testing.assert_close(rssm.observe(embedding, action, is_first)[1].feature[:, start:], from_start)


def test_imagine_equals_repeated_imagine_step(rssm):
    state, action = random_state(), torch.randn(B, T, A)
    torch.manual_seed(6)
    priors = rssm.imagine(state, action)
    torch.manual_seed(6)
    for t in range(T):
        state = rssm.imagine_step(state, action[:, t])
        torch.testing.assert_close(state.feature, priors.feature[:, t])
