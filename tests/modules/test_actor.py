import pytest
import torch
from torch.nn import functional

from dreamer.modules.actor import Actor

SETTINGS = {"num_layers": 4, "activation": "ELU", "min_std": 1e-4, "init_std": 5.0, "mean_scale": 5.0}


def make(discrete=False):
    return Actor(8, 3, discrete, hidden_size=16, **SETTINGS)


def test_tanh_normal_parameters():
    """mean = 5 tanh(x / 5), std = softplus(y + softplus⁻¹(5)) + 1e-4."""
    actor, feature = make(), torch.randn(10, 8)
    x, y = actor.network(feature).chunk(2, -1)
    normal = actor(feature).base_dist.base_dist
    torch.testing.assert_close(normal.loc, 5 * torch.tanh(x / 5))
    inverse = torch.tensor(5.0).exp().sub(1).log()
    torch.testing.assert_close(normal.scale, functional.softplus(y + inverse) + 1e-4)


def test_starts_with_the_initial_std():
    """With a network that says 0: mean 0 and std 5 + 1e-4."""
    actor = make()
    torch.nn.init.zeros_(actor.network[-1].weight)
    normal = actor(torch.randn(4, 8)).base_dist.base_dist
    torch.testing.assert_close(normal.loc, torch.zeros(4, 3))
    torch.testing.assert_close(normal.scale, torch.full((4, 3), 5.0001))


def test_shapes_and_bounds():
    distribution = make()(torch.randn(2, 5, 8))
    action = distribution.rsample()
    assert action.shape == distribution.mode.shape == (2, 5, 3) and action.abs().max() <= 1
    assert distribution.log_prob(action).shape == (2, 5)


def test_four_hidden_layers():
    assert len([layer for layer in make().network if isinstance(layer, torch.nn.ELU)]) == 4


def test_discrete_actions_are_one_hot():
    distribution = make(discrete=True)(torch.randn(50, 8))
    action = distribution.rsample()
    assert ((action.round() == 1).sum(-1) == 1).all()
    torch.testing.assert_close(action.detach(), action.detach().round())
    torch.testing.assert_close(distribution.mode.argmax(-1), distribution.probs.argmax(-1))


def test_discrete_gradient_passes_straight_through():
    """The gradient of a one-hot sample is that of the probabilities."""
    actor, feature, weight = make(discrete=True), torch.randn(5, 8), torch.randn(3)
    distribution = actor(feature)
    straight = torch.autograd.grad((distribution.rsample() * weight).sum(), actor.parameters(), retain_graph=True)
    through = torch.autograd.grad((distribution.probs * weight).sum(), actor.parameters())
    for one, other in zip(straight, through, strict=True):
        torch.testing.assert_close(one, other)
    assert max(gradient.abs().max() for gradient in straight) > 0


@pytest.mark.parametrize("init_std", [0.1, 1.0, 5.0, 50.0])
def test_inverse_softplus_is_stable(init_std):
    actor = Actor(8, 3, False, hidden_size=16, **(SETTINGS | {"init_std": init_std}))
    assert functional.softplus(torch.tensor(actor.raw_init_std)).item() == pytest.approx(init_std, rel=1e-5)
