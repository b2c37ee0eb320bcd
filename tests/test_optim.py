import pytest
import torch
from torch import nn

from dreamer.checkpoint import copy_to_cpu
from dreamer.optim import ClippedAdam


def make(modules, clip_grad=100.0, learning_rate=0.1):
    modules = nn.ModuleList(modules)
    return ClippedAdam(modules, learning_rate, adam_epsilon=1e-7, clip_grad=clip_grad, grad_norm_type=2.0)


def test_moves_its_own_parameters_only():
    """The gradient passes through what is frozen, and leaves none there."""
    mine, other = nn.Linear(2, 2), nn.Linear(2, 1)
    before = [parameter.clone() for parameter in mine.parameters()]
    make([mine]).step(other(mine(torch.ones(3, 2))).sum())
    assert all(parameter.grad is None for parameter in other.parameters())
    assert all((parameter != old).any() for parameter, old in zip(mine.parameters(), before, strict=True))


def test_clips_all_modules_together_and_returns_the_norm_from_before():
    """Gradients 300 and 400: norm 500, clipped to 100 as 60 and 80."""
    modules = [nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)]
    a, b = (module.weight for module in modules)
    norm = make(modules).step((300 * a + 400 * b).sum())
    assert norm.item() == pytest.approx(500)
    assert (a.grad.item(), b.grad.item()) == (pytest.approx(60), pytest.approx(80))


def test_a_small_gradient_is_left_alone_and_does_not_add_up_over_steps():
    module = nn.Linear(1, 1, bias=False)
    optimizer = make([module])
    for _ in range(3):
        norm = optimizer.step(3 * module.weight.sum())
        assert norm.item() == module.weight.grad.item() == pytest.approx(3)


def test_is_adam_with_its_learning_rate_and_epsilon():
    """The first step of Adam is lr · g / (|g| + ε): ε = 1e-7 halves it for a gradient of 1e-7."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    make([module], learning_rate=0.5).step(1e-7 * module.weight.sum())
    assert 1 - module.weight.item() == pytest.approx(0.25, rel=1e-3)


def test_goes_on_from_a_state():
    """The next steps are the same ones: the averages over the gradients are part of it."""
    module, other = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizer, restored = make([module]), make([other])
    for scale in (1.0, 10.0):
        optimizer.step(scale * module(torch.ones(3, 2)).sum())
    other.load_state_dict(module.state_dict())
    restored.load_state_dict(copy_to_cpu(optimizer.state_dict()))
    for scale in (5.0, -2.0):
        for each, its_optimizer in ((module, optimizer), (other, restored)):
            its_optimizer.step(scale * each(torch.ones(3, 2)).sum())
        assert torch.equal(other.weight, module.weight) and torch.equal(other.bias, module.bias)
