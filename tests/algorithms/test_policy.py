import numpy as np
import pytest
import torch

from dreamer.algorithms.policy import Policy
from dreamer.collect import Step
from dreamer.envs.make import make_env
from tests.toys import ToyEnv, make_dreamer


@pytest.fixture
def dreamer():
    return make_dreamer(ToyEnv())


def policy_for(dreamer, exploration_noise):
    return Policy(dreamer.model, dreamer.actor, exploration_noise)


def step(is_first=True):
    return Step(np.ones(1, np.float32), np.zeros(1, np.float32), 0.0, is_first, False, 1)


def test_evaluation_takes_the_mode_without_noise(dreamer):
    policy = policy_for(dreamer, exploration_noise=None)
    action = policy(step())
    mode = dreamer.actor(policy.state.feature).mode
    np.testing.assert_allclose(action, mode[0].detach().numpy())


def test_collection_adds_gaussian_noise_to_a_sample_and_clips(dreamer):
    class Fixed:
        def __init__(self, action):
            self.action = torch.full((1, 1), action)

        def sample(self):
            return self.action

    policy = policy_for(dreamer, exploration_noise=0.3)
    actions = torch.stack([policy.act(Fixed(0.1))[0, 0] for _ in range(4000)])
    assert actions.mean().item() == pytest.approx(0.1, abs=0.03) and actions.std().item() == pytest.approx(
        0.3, abs=0.03
    )
    clipped = torch.stack([policy.act(Fixed(1.0))[0, 0] for _ in range(500)])
    assert clipped.max() == 1 and 0.3 < (clipped == 1).float().mean() < 0.7


def test_collection_without_noise_still_samples(dreamer):
    policy = policy_for(dreamer, exploration_noise=0.0)
    distribution = dreamer.actor(torch.zeros(1, 20))
    actions = torch.cat([policy.act(distribution) for _ in range(20)])
    assert actions.std() > 0.1


def test_discrete_collection_replaces_a_share_of_the_actions():
    """With noise 0.3 and an actor sure of action 0 of 2: action 1 in 15 of 100 decisions."""
    env = make_env("gym", "", "CartPole-v1", 0, False, False, 64, 64, 1, 0)
    policy = policy_for(make_dreamer(env), exploration_noise=0.3)
    sure = torch.distributions.OneHotCategorical(logits=torch.tensor([[50.0, -50.0]]))
    actions = torch.cat([policy.act(sure) for _ in range(4000)])
    assert (actions.sum(1) == 1).all()
    assert actions[:, 1].mean().item() == pytest.approx(0.15, abs=0.03)
    together = policy.act(torch.distributions.OneHotCategorical(logits=torch.tensor([[50.0, -50.0]] * 4000)))
    assert (together.sum(1) == 1).all()
    assert together[:, 1].mean().item() == pytest.approx(0.15, abs=0.03)


def test_a_new_episode_forgets_the_last(dreamer):
    torch.manual_seed(0)
    fresh = policy_for(dreamer, None)
    fresh(step())
    used = policy_for(dreamer, None)
    for _ in range(5):
        used(step(is_first=False))
    torch.manual_seed(0)
    used(step())
    torch.testing.assert_close(used.state.feature, fresh.state.feature)


def together(*steps):
    return Step(*(np.stack(parts) for parts in zip(*steps, strict=True)))


def test_several_environments_are_filtered_each_for_itself(dreamer):
    """The first one's episode begins where the second one's goes on."""
    alone, several = policy_for(dreamer, None), policy_for(dreamer, None)
    other = step(is_first=False)._replace(observation=np.full(1, -3, np.float32), action=np.ones(1, np.float32))
    several(together(step(), step()))
    state = several.state
    several(together(step(), other))
    alone.state = state.map(lambda part: part[1:])
    alone(other)
    torch.testing.assert_close(several.state.deterministic[1:], alone.state.deterministic)
    alone(step())
    torch.testing.assert_close(several.state.deterministic[:1], alone.state.deterministic)
    torch.testing.assert_close(several.state.parameters.mean[:1], alone.state.parameters.mean)
    assert (several.state.parameters.mean[0] != several.state.parameters.mean[1]).all()


@pytest.mark.parametrize("environments", [1, 3])
def test_actions_of_several_environments(dreamer, environments):
    """One for each, with noise of its own; of one environment, that which it gets alone."""
    policy = policy_for(dreamer, 0.3)
    torch.manual_seed(0)
    actions = policy(together(*[step()] * environments))
    assert actions.shape == (environments, 1) and len(set(actions.ravel())) == environments
    torch.manual_seed(0)
    assert (policy_for(dreamer, 0.3)(step()) == actions[0]).all() == (environments == 1)


def test_builds_no_graph(dreamer):
    policy = policy_for(dreamer, 0.3)
    policy(step())
    assert not policy.state.feature.requires_grad
