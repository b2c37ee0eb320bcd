from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dreamer.algorithms.policy import Policy
from dreamer.envs.actions import ActionParts
from dreamer.envs.make import make_env
from dreamer.replay.step import Step
from tests.small_algorithms import make
from tests.toys import ToyEnv, make_dreamer


@pytest.fixture
def dreamer():
    return make_dreamer(ToyEnv())


def policy_for(dreamer, exploration_noise=None):
    return Policy(dreamer.model, dreamer.actor, exploration_noise)


def step(is_first=True):
    return Step(np.ones(1, np.float32), np.zeros(1, np.float32), 0.0, is_first, False, 1)


def test_evaluation_uses_the_mode_without_noise_or_gradients(dreamer):
    policy = policy_for(dreamer)
    action = policy(step())
    mode = dreamer.actor(policy.state.feature).mode
    np.testing.assert_allclose(action, mode[0].detach().numpy())
    assert not policy.state.feature.requires_grad


def test_collection_adds_gaussian_noise_to_a_sample_and_clips(dreamer):
    policy = policy_for(dreamer, 0.3)
    for sample, share in [(0.1, 0.0013), (1.0, 0.5)]:  # fraction of actions that are clipped
        distribution = SimpleNamespace(sample=lambda sample=sample: torch.full((4000, 1), sample))
        actions = policy.act(distribution).flatten().sort().values
        normal = torch.distributions.Normal(sample, 0.3).cdf(actions)
        assert (normal - torch.linspace(0, 1, 4000))[actions < 1].abs().max() < 0.03
        assert actions.max() == 1 and (actions == 1).float().mean().item() == pytest.approx(share, abs=0.03)


def test_collection_without_noise_still_samples(dreamer):
    policy = policy_for(dreamer, exploration_noise=0.0)
    distribution = dreamer.actor(torch.zeros(1, 20))
    actions = torch.cat([policy.act(distribution) for _ in range(20)])
    assert actions.std() > 0.1


def test_discrete_collection_replaces_a_share_of_the_actions():
    """With noise 0.3 and an actor that always chooses action 0 of 2, action 1 is taken in 15% of the steps."""
    env = make_env("gym", "", "CartPole-v1", 0, False, False, 64, 64, 1, 0)
    policy = policy_for(make_dreamer(env), exploration_noise=0.3)
    confident = torch.distributions.OneHotCategorical(logits=torch.tensor([[50.0, -50.0]] * 4000))
    actions = policy.act(confident)
    assert (actions.sum(1) == 1).all()
    assert actions[:, 1].mean().item() == pytest.approx(0.15, abs=0.03)


def test_collection_adds_noise_to_each_part_of_an_action():
    """With noise 0.3, the actor always chooses the first of three, 0.1, and the first of two, twice."""
    policy = Policy(*(getattr(make(1, actions=ActionParts([3, 0, 2, 2])), name) for name in ("model", "actor")), 0.3)
    samples = torch.tensor([[1, 0, 0, 0.1, 1, 0, 1, 0]] * 4000)
    actions = policy.act(SimpleNamespace(sample=lambda: samples))
    assert actions[:, 3].mean().item() == pytest.approx(0.1, abs=0.03)
    assert actions[:, 3].std().item() == pytest.approx(0.3, abs=0.03)
    others = {part: actions[:, part].mean().item() for part in (1, 2, 5, 7)}
    assert others == pytest.approx({1: 0.1, 2: 0.1, 5: 0.15, 7: 0.15}, abs=0.03)
    both = (actions[:, 5] * actions[:, 7]).mean().item()
    assert both == pytest.approx(0.15**2, abs=0.015), "each part for itself"
    assert (actions[:, :3].sum(1) == 1).all() and (actions[:, 4:].sum(1) == 2).all()


def test_first_step_of_an_episode_resets_the_state(dreamer):
    torch.manual_seed(0)
    fresh, used = policy_for(dreamer), policy_for(dreamer)
    fresh(step())
    for _ in range(5):
        used(step(is_first=False))
    torch.manual_seed(0)
    used(step())
    torch.testing.assert_close(used.state.feature, fresh.state.feature)


def stack_steps(*steps):
    return Step(*(np.stack(parts) for parts in zip(*steps, strict=True)))


def test_batched_environments_have_separate_states(dreamer, monkeypatch):
    """One environment starts an episode while the other continues. Latents are posterior means."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    single, batched = policy_for(dreamer), policy_for(dreamer)
    other = step(is_first=False)._replace(observation=np.full(1, -3, np.float32), action=np.ones(1, np.float32))
    batched(stack_steps(step(), step()))
    state = batched.state
    batched(stack_steps(step(), other))
    single.state = state.map(lambda part: part[1:])
    single(other)
    torch.testing.assert_close(batched.state.deterministic[1:], single.state.deterministic)
    single(step())
    torch.testing.assert_close(batched.state.deterministic[:1], single.state.deterministic)
    torch.testing.assert_close(batched.state.stochastic[:1], single.state.stochastic)
    assert (batched.state.stochastic[0] != batched.state.stochastic[1]).all()


@pytest.mark.parametrize("environments", [1, 3])
def test_each_environment_gets_its_own_action(dreamer, environments):
    """Each environment gets independent noise. A batch of one gets the same action as a single step."""
    policy = policy_for(dreamer, 0.3)
    torch.manual_seed(0)
    actions = policy(stack_steps(*[step()] * environments))
    assert actions.shape == (environments, 1) and len(set(actions.ravel())) == environments
    torch.manual_seed(0)
    assert (policy_for(dreamer, 0.3)(step()) == actions[0]).all() == (environments == 1)
