"""Discrete actions and the initial std. test_golden.py checks means, stds and likelihoods of continuous actions."""

from functools import partial

import pytest
import torch
from torch.nn import functional

from dreamer.modules.actor import Actor, one_hot, tanh_normal
from dreamer.modules.joint import group_parts


def make(discrete=False, init_std=5.0):
    policy = partial(tanh_normal, mean_scale=5.0, init_std=init_std, min_std=1e-4)
    size, policy = (3, partial(one_hot, unimix=0.0)) if discrete else (6, policy)
    return Actor(
        8, size, policy, group_parts([3] if discrete else [0, 0, 0]), hidden_size=16, num_layers=4, activation="ELU"
    )


def test_discrete_actions_are_one_hot():
    distribution = make(discrete=True)(torch.randn(50, 8))
    action = distribution.rsample().detach()
    torch.testing.assert_close(action, functional.one_hot(action.argmax(-1), 3).float())
    torch.testing.assert_close(distribution.mode.argmax(-1), distribution.probs.argmax(-1))


def test_discrete_gradient_passes_straight_through():
    """The gradient of a one-hot sample equals the gradient of its probabilities."""
    actor, weight = make(discrete=True), torch.randn(3)
    distribution = actor(torch.randn(5, 8))
    sample_gradients, probability_gradients = (
        torch.autograd.grad((action * weight).sum(), actor.parameters(), retain_graph=True)
        for action in (distribution.rsample(), distribution.probs)
    )
    torch.testing.assert_close(sample_gradients, probability_gradients)
    assert max(gradient.abs().max() for gradient in sample_gradients) > 0


@pytest.mark.parametrize("init_std", [0.1, 1.0, 5.0, 50.0])
def test_zero_network_output_gives_the_initial_std(init_std):
    """The last weights are zero. Large and small stds are tested because an exponential could overflow or underflow."""
    actor = make(init_std=init_std)
    torch.nn.init.zeros_(actor.network[-1].weight)
    distribution = actor(torch.randn(2, 5, 8))
    normal = distribution.normal
    torch.testing.assert_close(normal.loc, torch.zeros(2, 5, 3))
    torch.testing.assert_close(normal.scale, torch.full((2, 5, 3), init_std + 1e-4))
    assert distribution.mode.shape == (2, 5, 3) and distribution.rsample().abs().max() <= 1
