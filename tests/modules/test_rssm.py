import pytest
import torch
from torch.nn import functional

from dreamer.modules.latents import Gaussian, GaussianModel
from dreamer.modules.rssm import RSSM, RecurrentModel, State, stack

B, T, A, D, S, E = 3, 6, 2, 10, 4, 5
GAUSSIAN = {"hidden_size": 12, "num_layers": 1, "activation": "ELU", "min_std": 0.1}


@pytest.fixture
def rssm():
    torch.manual_seed(0)
    recurrent_model = RecurrentModel(S, D, A, hidden_size=12, activation="ELU")
    return RSSM(recurrent_model, GaussianModel(D, S, **GAUSSIAN), GaussianModel(D + E, S, **GAUSSIAN))


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
    torch.testing.assert_close(state.flatten().feature[T + 2], state.feature[1, 2])
    torch.testing.assert_close(state.last().feature, state.feature[:, -1])
    torch.testing.assert_close(state.distribution.mean, state.parameters.mean)
    torch.testing.assert_close(state.distribution.stddev, state.parameters.std)


def test_detach_cuts_every_part():
    state = random_state().map(torch.Tensor.requires_grad_)
    assert not any(part.requires_grad for part in tensors(state.detach()))


def test_recurrent_model_reads_the_previous_latent_and_the_action_that_leads_here(rssm):
    """h_t = GRU(ELU(W [z_{t-1}, a_t] + b), h_{t-1})."""
    state, action = random_state(), torch.randn(B, A)
    model = rssm.recurrent_model
    hidden = functional.elu(model.linear(torch.cat([state.stochastic, action], 1)))
    torch.testing.assert_close(rssm.imagine_step(state, action).deterministic, model.gru(hidden, state.deterministic))


def test_the_recurrence_keeps_float32_in_a_lower_precision(rssm):
    """And in `observe` everything does."""
    state, action = random_state(), torch.randn(B, A)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = rssm.imagine_step(state, action)
        observed = rssm.observe(torch.randn(B, T, E), torch.randn(B, T, A), torch.zeros(B, T))
    assert {part.dtype for each in (reduced, *observed) for part in tensors(each)} == {torch.float32}
    exact = rssm.imagine_step(state, action).deterministic
    assert 0 < (reduced.deterministic - exact).abs().max() < 0.02


@pytest.mark.parametrize("prior", [True, False])
def test_gaussian_parameters_and_samples(rssm, prior):
    """std = softplus(·) + 0.1, and the sample is one of Normal(mean, std)."""
    model, inputs = (rssm.transition_model, D) if prior else (rssm.representation_model, D + E)
    inputs = torch.randn(1, inputs).expand(20_000, -1)
    mean, raw_std = model.network(inputs).chunk(2, -1)
    parameters = model(inputs)
    torch.testing.assert_close(parameters.mean, mean)
    torch.testing.assert_close(parameters.std, functional.softplus(raw_std) + 0.1)
    sample = parameters.sample()
    torch.testing.assert_close(sample.mean(0), mean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(sample.std(0), parameters.std[0], atol=0.05, rtol=0)


def test_step_by_step_is_the_whole_sequence(rssm, windows):
    """What acting does one step at a time is what training does at once: same posteriors, and their priors."""
    embedding, action, is_first = windows
    is_first[:, 0], is_first[1, 3] = 1, 1
    torch.manual_seed(2)
    prior, posterior = rssm.observe(embedding, action, is_first)
    torch.manual_seed(2)
    state = rssm.initial_state(B)
    for t in range(T):
        keep = (1 - is_first[:, t])[:, None]
        before = state.map(lambda part, keep=keep: part * keep)
        state = rssm.observe_step(state, action[:, t], embedding[:, t], is_first[:, t])
        torch.testing.assert_close(tensors(state), [part[:, t] for part in tensors(posterior)])
        with torch.random.fork_rng():
            one_step_prior = rssm.imagine_step(before, action[:, t] * keep)
        torch.testing.assert_close(one_step_prior.parameters, Gaussian(*(part[:, t] for part in prior.parameters)))


def test_is_first_isolates_episodes(rssm, windows):
    """After an is_first nothing of what came before matters, nor the action stored with it; before it, all does."""
    embedding, action, is_first = windows
    is_first[:, 3] = 1
    other_embedding, other_action = embedding.clone(), action.clone()
    other_embedding[:, :3] += 1
    other_action[:, :4] += 1

    def posterior(embedding, action, is_first):
        torch.manual_seed(3)
        return rssm.observe(embedding, action, is_first)[1].feature

    one, other = posterior(embedding, action, is_first), posterior(other_embedding, other_action, is_first)
    torch.testing.assert_close(one[:, 3:], other[:, 3:])
    assert (one[:, :3] != other[:, :3]).any()
    never = torch.zeros_like(is_first)
    one, other = posterior(embedding, action, never), posterior(other_embedding, other_action, never)
    assert (one[:, 3:] - other[:, 3:]).abs().max() > 1e-3


def test_a_reset_is_the_initial_state(rssm):
    state, action, embedding = random_state(), torch.randn(B, A), torch.randn(B, E)
    torch.manual_seed(4)
    reset = rssm.observe_step(state, action, embedding, torch.ones(B))
    torch.manual_seed(4)
    fresh = rssm.observe_step(rssm.initial_state(B), torch.zeros(B, A), embedding, torch.zeros(B))
    torch.testing.assert_close(tensors(reset), tensors(fresh))


def test_a_window_that_starts_within_an_episode_reads_its_first_action(rssm, windows):
    embedding, action, is_first = windows
    torch.manual_seed(5)
    one = rssm.observe(embedding, action, is_first)[1]
    action = action.clone()
    action[:, 0] += 1
    torch.manual_seed(5)
    assert (one.feature[:, 0] != rssm.observe(embedding, action, is_first)[1].feature[:, 0]).any()


def test_open_loop_imagination_is_imagine_step_by_step(rssm):
    state, action = random_state(), torch.randn(B, T, A)
    torch.manual_seed(6)
    priors = rssm.imagine(state, action)
    torch.manual_seed(6)
    for t in range(T):
        state = rssm.imagine_step(state, action[:, t])
        torch.testing.assert_close(state.feature, priors.feature[:, t])
