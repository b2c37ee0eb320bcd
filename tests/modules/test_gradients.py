from functools import partial

import pytest
import torch

from dreamer.modules.gradients import apart, frozen, plain_apart, plain_scan, scan
from dreamer.modules.layers import mlp


def network():
    torch.manual_seed(0)
    return mlp(3, 2, 4, 1, "ELU", norm="rms")


def gradients(form, network, inputs):
    """Those of the inputs and of the weights, where each of the two results has a loss of its own."""
    first, second = form(network, inputs)
    return torch.autograd.grad(first.exp().sum() + second.square().sum(), [inputs, *network.parameters()])


def test_gradients_apart():
    layers, inputs = network(), torch.randn(5, 3, requires_grad=True)
    (to_inputs,) = torch.autograd.grad(layers(inputs).exp().sum(), [inputs])
    to_weights = torch.autograd.grad(layers(inputs).square().sum(), list(layers.parameters()))
    for form in (apart, plain_apart):
        assert all(map(torch.equal, gradients(form, layers, inputs), [to_inputs, *to_weights]))
        assert all(map(torch.equal, form(layers, inputs), 2 * [layers(inputs)]))


def test_the_network_runs_once():
    calls, layers = [], network()
    layers.register_forward_hook(lambda *arguments: calls.append(1))
    for inputs in (torch.randn(5, 3), torch.randn(5, 3, requires_grad=True)):
        first, second = apart(layers, inputs)
        assert first.requires_grad == inputs.requires_grad and second.requires_grad
    assert len(calls) == 2


def test_frozen_modules_pass_gradients_on_and_learn_again_after_an_error():
    layers, inputs = network(), torch.randn(5, 3, requires_grad=True)
    layers[0].bias.requires_grad_(False)  # for good
    with pytest.raises(ZeroDivisionError), frozen(layers):
        layers(inputs).sum().backward()
        raise ZeroDivisionError
    assert inputs.grad is not None and all(weight.grad is None for weight in layers.parameters())
    assert [name for name, weight in layers.named_parameters() if not weight.requires_grad] == ["0.bias"]


def test_a_scan_is_its_steps():
    """Results bit for bit; gradients of carry, inputs and weights up to the order of additions."""
    layers = network()
    given = [torch.randn(4, 2), torch.randn(5, 4, 1), torch.randn(5, 4, 2)]  # the carry; two inputs of 5 steps
    for part in given[:2]:
        part.requires_grad_()  # the second input has no gradient, as noise has none

    def step(carry, part, noise):
        after = layers(torch.cat([carry, part], -1)) + noise
        return after, after.exp()

    found = []
    for function in (partial(scan, step, list(layers.parameters())), partial(plain_scan, step)):
        states, others = function(given[:1], given[1:])
        gradients = torch.autograd.grad((states.square() + others).sum(), [*given[:2], *layers.parameters()])
        found.append((states, others, gradients))
    (states, others, gradients), (same, same_others, expected) = found
    assert torch.equal(states, same) and torch.equal(others, same_others)
    torch.testing.assert_close(gradients, expected, rtol=1e-5, atol=1e-6)
