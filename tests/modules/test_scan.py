import pytest
import torch
from torch import nn

from dreamer.algorithms.imagined import ImaginedScan
from dreamer.algorithms.losses import imagine
from dreamer.modules.layers import mlp
from dreamer.modules.scan import Scan
from tests.versions import make


class Step(nn.Module):
    """Two numbers are carried. The second result is not laid out row by row."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.unused = mlp(3, 2, 4, 1, "ELU", norm="rms"), nn.Linear(1, 1)

    def forward(self, carry, part, noise):
        after = self.layers(torch.cat([carry, part], -1)) + noise
        return after, after.exp().t().contiguous().t()


def strict(graph, arguments):
    """A graph that takes only tensors laid out like those it was made for, as a compiled one takes them to be."""
    layout = [(part.shape, part.stride()) for part in arguments]

    def call(*others):
        assert [(part.shape, part.stride()) for part in others] == layout
        return graph(*others)

    return call


def plain_scan(step, carry, inputs):
    """What autograd makes of the same steps."""
    results = []
    for parts in zip(*inputs, strict=True):
        results.append(step(*carry, *parts))
        carry = results[-1][: len(carry)]
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True))


def test_a_scan_is_its_steps():
    """Results bit for bit; gradients of carry, inputs and weights up to the order of additions."""
    step, graphs = Step(), []
    given = [torch.randn(4, 4)[:, :2], torch.randn(4, 5, 1).transpose(0, 1), torch.randn(5, 4, 2)]  # 5 steps of 4 rows
    for part in given[:2]:
        part.requires_grad_()  # the second input has no gradient, as noise has none

    def compiler(graph, arguments):
        graphs.append(graph)
        return strict(graph, arguments)

    scan, found = Scan(step, 1, compiler), []
    for function in (scan, scan, lambda *parts: plain_scan(step, *parts)):
        states, others = function(given[:1], given[1:])
        loss = states.square().sum() + others.transpose(0, 1).flatten()[3:].sum()
        gradients = torch.autograd.grad(loss, [*given[:2], *step.layers.parameters()])
        found.append((states, others, gradients))
    assert len(graphs) == 3
    states, others, expected = found.pop()
    for row in found:
        assert torch.equal(row[0], states) and torch.equal(row[1], others)
        torch.testing.assert_close(row[2], expected, rtol=1e-5, atol=1e-6)


class Forgetful(nn.Module):
    """Does not read the first of the two tensors that it carries."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, forgotten, carry, part):
        return carry * self.scale + part, (carry * part).tanh() * self.scale


def test_what_a_step_does_not_read_of_its_carry_has_no_gradient():
    given = [torch.randn(2, 3, requires_grad=True) for _ in range(2)], [torch.randn(4, 2, 3)]
    found = []
    for scan in (Scan(Forgetful(), 2, strict), lambda *parts: plain_scan(Forgetful(), *parts)):
        loss = sum(result.square().sum() for result in scan(*given))
        found.append(torch.autograd.grad(loss, given[0], allow_unused=True, materialize_grads=True))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("version", [1, 2])
def test_imagination_by_a_scan_is_imagination(version):
    """The random numbers bit for bit; results and the actor's gradients up to rounding."""
    algorithm = make(version)
    model, actor = algorithm.model.requires_grad_(False), algorithm.actor
    start, found = model.rssm.restored(torch.randn(8, model.rssm.stored_size)), []
    scan = ImaginedScan(model.rssm, actor, strict)
    for form in (scan, scan, None):
        torch.manual_seed(0)
        imagination = imagine(model.rssm, actor, start, 4, through_dynamics=True, scan=form)
        loss = sum(part.square().sum() for part in imagination)
        found.append((*imagination, torch.rand(1), torch.autograd.grad(loss, list(actor.parameters()))))
    *expected, numbers, gradients = found.pop()
    for *results, drawn, others in found:
        assert torch.equal(drawn, numbers)
        torch.testing.assert_close(results, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-5)
