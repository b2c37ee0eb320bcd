import pytest
import torch
from torch import nn

from dreamer.algorithms.imagined import ImaginedScan
from dreamer.algorithms.losses import imagine
from dreamer.modules.layers import mlp
from dreamer.modules.scan import Scan
from tests.small_algorithms import make


class Step(nn.Module):
    """Carries two numbers. The second result is not contiguous."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.unused = mlp(3, 2, 4, 1, "ELU", norm="rms"), nn.Linear(1, 1)

    def forward(self, carry, part, noise):
        after = self.layers(torch.cat([carry, part], -1)) + noise
        return after, after.exp().t().contiguous().t()


def strict(graph, arguments):
    """Return a graph that asserts the shapes and strides it was made for, which a compiled graph assumes."""
    layout = [(part.shape, part.stride()) for part in arguments]

    def call(*others):
        assert [(part.shape, part.stride()) for part in others] == layout
        return graph(*others)

    return call


def plain_scan(step, carry, inputs):
    """Run the same steps in a plain loop."""
    steps = []
    for parts in zip(*inputs, strict=True):
        steps.append(step(*carry, *parts))
        carry = steps[-1][: len(carry)]
    return tuple(torch.stack(parts) for parts in zip(*steps, strict=True))


def test_scan_equals_its_steps():
    """Results are equal bit for bit; gradients are equal up to the order of additions."""
    step, graphs = Step(), []
    inputs = [torch.randn(4, 4)[:, :2], torch.randn(4, 5, 1).transpose(0, 1), torch.randn(5, 4, 2)]  # 5 steps of 4 rows
    for part in inputs[:2]:
        part.requires_grad_()  # the second input has no gradient, like noise

    def compiler(graph, arguments):
        graphs.append(graph)
        return strict(graph, arguments)

    scan, results = Scan(step, 1, compiler), []
    for function in (scan, scan, lambda *parts: plain_scan(step, *parts)):
        states, others = function(inputs[:1], inputs[1:])
        loss = states.square().sum() + others.transpose(0, 1).flatten()[3:].sum()
        gradients = torch.autograd.grad(loss, [*inputs[:2], *step.layers.parameters()])
        results.append((states, others, gradients))
    assert len(graphs) == 3
    states, others, expected = results.pop()
    for row in results:
        assert torch.equal(row[0], states) and torch.equal(row[1], others)
        torch.testing.assert_close(row[2], expected, rtol=1e-5, atol=1e-6)


class IgnoresFirstCarry(nn.Module):
    """Ignores the first of its two carried tensors."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, ignored, carry, part):
        return carry * self.scale + part, (carry * part).tanh() * self.scale


def test_unread_carry_has_a_zero_gradient():
    inputs = [torch.randn(2, 3, requires_grad=True) for _ in range(2)], [torch.randn(4, 2, 3)]
    results = []
    for scan in (Scan(IgnoresFirstCarry(), 2, strict), lambda *parts: plain_scan(IgnoresFirstCarry(), *parts)):
        loss = sum(result.square().sum() for result in scan(*inputs))
        results.append(torch.autograd.grad(loss, inputs[0], allow_unused=True, materialize_grads=True))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("version", [1, 2])
def test_imagination_by_a_scan_equals_plain_imagination(version):
    """The random numbers are equal bit for bit; results and the actor's gradients are equal up to rounding."""
    algorithm = make(version)
    model, actor = algorithm.model.requires_grad_(False), algorithm.actor
    start, runs = model.rssm.restored(torch.randn(8, model.rssm.stored_size)), []
    scan = ImaginedScan(model.rssm, actor, strict)
    for scan_or_none in (scan, scan, None):
        torch.manual_seed(0)
        imagination = imagine(model.rssm, actor, start, 4, through_dynamics=True, scan=scan_or_none)
        loss = sum(part.square().sum() for part in imagination)
        runs.append((*imagination, torch.rand(1), torch.autograd.grad(loss, list(actor.parameters()))))
    *expected, numbers, gradients = runs.pop()
    for *results, drawn, others in runs:
        assert torch.equal(drawn, numbers)
        torch.testing.assert_close(results, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-5)
