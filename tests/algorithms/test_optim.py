import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from dreamer.algorithms.optim import ClippedAdam, KerasAdam, LaProp, make_optimizer, step_together
from dreamer.training.checkpoint_file import copy_to_cpu
from tests.toys import settings_of


def make(modules, clip_grad=100.0, learning_rate=0.1):
    modules = nn.ModuleList(modules)
    return ClippedAdam(modules, learning_rate, adam_epsilon=1e-7, clip_grad=clip_grad, grad_norm_type=2.0)


KERAS = {"adam_epsilon": 1e-5, "clip_grad": 100.0, "grad_norm_type": 2.0, "weight_decay": 0.0}
KINDS = {
    "adam": partial(ClippedAdam, learning_rate=0.1, adam_epsilon=1e-7, clip_grad=100.0, grad_norm_type=2.0),
    "keras_adam": partial(KerasAdam, learning_rate=0.1, **KERAS),
    "laprop": partial(LaProp, learning_rate=0.1, warm_up=0, agc=0.3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_step_changes_only_the_optimizers_own_parameters(kind):
    """The gradient flows through another module without being stored there."""
    trained, frozen = nn.Linear(2, 2), nn.Linear(2, 1)
    before = [parameter.clone() for parameter in trained.parameters()]
    KINDS[kind](trained).step(frozen(trained(torch.ones(3, 2))).sum())
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert all((parameter != old).any() for parameter, old in zip(trained.parameters(), before, strict=True))


def test_clips_by_the_joint_norm_and_returns_the_unclipped_norm():
    """Gradients 300 and 400 have norm 500; clipped to norm 100 they are 60 and 80."""
    modules = [nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)]
    a, b = (module.weight for module in modules)
    norm = make(modules).step((300 * a + 400 * b).sum())
    assert norm.item() == pytest.approx(500)
    assert (a.grad.item(), b.grad.item()) == (pytest.approx(60), pytest.approx(80))


def test_small_gradients_are_neither_clipped_nor_accumulated():
    module = nn.Linear(1, 1, bias=False)
    optimizer = make([module])
    for _ in range(3):
        norm = optimizer.step(3 * module.weight.sum())
        assert norm.item() == module.weight.grad.item() == pytest.approx(3)


@pytest.mark.parametrize("kind", KINDS)
def test_restored_optimizer_makes_the_same_steps(kind):
    """The state holds the gradient averages and the step count."""
    module, other = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizer, restored = KINDS[kind](module), KINDS[kind](other)
    for scale in (1.0, 10.0):
        optimizer.step(scale * module(torch.ones(3, 2)).sum())
    other.load_state_dict(module.state_dict())
    restored.load_state_dict(copy_to_cpu(optimizer.state_dict()))
    for scale in (5.0, -2.0):
        for each, its_optimizer in ((module, optimizer), (other, restored)):
            its_optimizer.step(scale * each(torch.ones(3, 2)).sum())
        assert torch.equal(other.weight, module.weight) and torch.equal(other.bias, module.bias)


@pytest.mark.parametrize("kind", KINDS)
def test_state_loads_into_weights_of_another_memory_format(kind):
    """Adam's averages get the memory format of their weights, which a fused step on a GPU requires."""
    module, other = nn.Conv2d(3, 4, 2), nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
    optimizer, restored = KINDS[kind](module), KINDS[kind](other)
    optimizer.step(module(torch.ones(1, 3, 4, 4)).square().sum())
    other.load_state_dict(module.state_dict())
    restored.load_state_dict(copy_to_cpu(optimizer.state_dict()))
    averages = [copy_to_cpu(each.state_dict()) for each in (optimizer, restored)]
    torch.testing.assert_close(*averages, rtol=0, atol=0)
    restored.step(other(torch.ones(1, 3, 4, 4)).square().sum())
    of_weights = [part for part in tree_leaves(restored.state_dict()) if getattr(part, "ndim", 0) == 4]
    assert len(of_weights) == 2 and other.weight.stride() != module.weight.stride()
    if kind == "adam":
        assert {part.stride() for part in (*of_weights, other.weight.grad)} == {other.weight.stride()}


@pytest.mark.parametrize("kind", ["keras_adam", "laprop"])
def test_parameter_without_gradient_stands_still(kind):
    """A parameter that the loss does not reach counts as one with a zero gradient."""
    reached, other = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    optimizer, before = KINDS[kind](nn.ModuleList([reached, other])), other.weight.clone()
    for _ in range(2):
        optimizer.step(reached.weight.sum())
    assert torch.equal(other.weight, before) and not optimizer.state_dict()["first"][1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_step_together_equals_separate_steps(kind):
    """All gradients are computed before any step, and a module without an optimizer stores none."""
    modules, alone = [nn.Linear(2, 2), nn.Linear(2, 1)], [nn.Linear(2, 2), nn.Linear(2, 1)]
    frozen = nn.Linear(1, 1)
    for one, twin in zip(modules, alone, strict=True):
        twin.load_state_dict(one.state_dict())

    def loss(first, second):
        return frozen(second(first(torch.ones(3, 2)).tanh())).exp().sum()

    norms = [
        KINDS[kind](alone[0]).step(loss(alone[0], modules[1])),
        KINDS[kind](alone[1]).step(loss(modules[0], alone[1])),
    ]
    torch.testing.assert_close(step_together(loss(*modules), [KINDS[kind](module) for module in modules]), norms)
    for one, twin in zip(modules, alone, strict=True):
        torch.testing.assert_close(one.state_dict(), twin.state_dict())
    assert frozen.weight.grad is None


# DreamerV2's


def test_keras_adam_adds_epsilon_before_the_bias_correction():
    """At the first step √0.001 times a gradient of ε / √0.001 equals ε, which halves the step."""
    module = nn.Linear(1, 1, bias=False)
    before = module.weight.item()
    KINDS["keras_adam"](module).step(1e-5 / 0.001**0.5 * module.weight.sum())
    assert before - module.weight.item() == pytest.approx(0.1 / 2, rel=1e-3)


def test_weight_decay_does_not_depend_on_the_learning_rate():
    """Biases decay, too, and the decay comes before the step."""
    module = nn.Linear(2, 1)
    nn.init.constant_(module.bias, 3.0)
    before = [parameter.clone() for parameter in module.parameters()]
    optimizer = KerasAdam(module, 1e-12, **(KERAS | {"weight_decay": 0.01}))
    optimizer.step(module(torch.ones(1, 2)).sum())
    for parameter, old in zip(module.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, 0.99 * old)


# DreamerV3's


def step_sizes(gradients, weight=1.0, **settings):
    """Return by how much LaProp reduces a weight for each of several gradients."""
    module = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(module.weight, weight)
    optimizer, steps = LaProp(module, **({"learning_rate": 1e-3, "warm_up": 0, "agc": 1e9} | settings)), []
    for gradient in gradients:
        before = module.weight.item()
        optimizer.step(gradient * module.weight.sum())
        steps.append(before - module.weight.item())
    return steps


def test_laprop_normalizes_gradients_before_averaging_them():
    """With gradients 1, then 0, the second step is the average's share of the first, normalized gradient."""
    first, second = step_sizes([1.0, 0.0])
    assert first == pytest.approx(1e-3)
    assert second == pytest.approx(1e-3 * 0.9 * 0.1 / (1 - 0.9**2))


def test_laprop_warm_up_scales_the_step_and_not_the_average():
    """A gradient that was averaged while the rate was 0 still moves the weight at the next step."""
    steps = step_sizes([1.0] * 6, warm_up=4)
    assert steps == pytest.approx([0.0, 0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])
    steps = step_sizes([1.0, 0.0], warm_up=1)
    assert steps == pytest.approx([0.0, 1e-3 * 0.9 * 0.1 / (1 - 0.9**2)])


def test_adaptive_clipping_uses_the_norm_of_each_tensor():
    """A gradient is clipped to 0.3 times its weight's norm, at least 1e-3, before its square is averaged. Zero biases
    are clipped, too; smaller gradients are unchanged."""
    module = nn.Linear(2, 1).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[3.0, 4.0]]))
        module.bias.zero_()
    optimizer = LaProp(module, 1e-3, warm_up=0, agc=0.3)
    optimizer.step((100 * module.weight).sum() + 100 * module.bias.sum())
    clipped = 0.001 * torch.tensor([[1.5**2 / 2] * 2]), 0.001 * torch.tensor([3e-4**2])
    for average, expected in zip(optimizer.state_dict()["second"], clipped, strict=True):
        torch.testing.assert_close(average, expected.double(), rtol=1e-5, atol=0)
    low = LaProp(module, 1e-3, warm_up=0, agc=0.3)
    low.step((0.1 * module.weight).sum())
    torch.testing.assert_close(low.state_dict()["second"][0], torch.full((1, 2), 0.001 * 0.01).double())


@pytest.mark.parametrize("name, kind", [("dreamer", ClippedAdam), ("dreamer-v2", KerasAdam), ("dreamer-v3", LaProp)])
def test_each_version_uses_its_own_optimizer(name, kind):
    optimizer = make_optimizer(settings_of(name), nn.Linear(1, 1), 1e-3)
    assert type(optimizer) is kind
    numbers = {
        ClippedAdam: lambda: (optimizer.adam.param_groups[0]["eps"], optimizer.clip_grad),
        KerasAdam: lambda: (optimizer.epsilon, optimizer.clip_grad, optimizer.keep, optimizer.learning_rate),
        LaProp: lambda: (optimizer.warm_up, optimizer.agc, optimizer.learning_rate),
    }
    expected = {ClippedAdam: (1e-7, 100), KerasAdam: (1e-5, 100, 1 - 1e-6, 1e-3), LaProp: (1000, 0.3, 1e-3)}
    assert numbers[kind]() == expected[kind]


def test_triton_is_imported_before_any_renderer(tmp_path):
    """Imported in the other order, libtriton.so and Mesa's software renderer, each with its LLVM, crash (SIGSEGV)."""
    (tmp_path / "triton.py").write_text("print('imported')")
    command = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import dreamer.algorithms.optim; print(*sys.modules)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", command], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("imported") and "dm_control" not in done.stdout.split()
