import pytest
import torch

from dreamer.modules.gradients import frozen, plain_split_gradients, split_gradients
from dreamer.modules.layers import mlp


def network():
    torch.manual_seed(0)
    return mlp(3, 2, 4, 1, "ELU", norm="rms")


def gradients(function, network, inputs):
    """Return the gradients of inputs and weights of a loss that uses a different function of each result."""
    for_inputs, for_weights = function(network, inputs)
    return torch.autograd.grad(for_inputs.exp().sum() + for_weights.square().sum(), [inputs, *network.parameters()])


def test_split_gradients_separate_inputs_and_weights():
    layers, inputs = network(), torch.randn(5, 3, requires_grad=True)
    (to_inputs,) = torch.autograd.grad(layers(inputs).exp().sum(), [inputs])
    to_weights = torch.autograd.grad(layers(inputs).square().sum(), list(layers.parameters()))
    for function in (split_gradients, plain_split_gradients):
        assert all(map(torch.equal, gradients(function, layers, inputs), [to_inputs, *to_weights]))
        assert all(map(torch.equal, function(layers, inputs), 2 * [layers(inputs)]))


def test_split_gradients_run_the_network_once():
    calls, layers = [], network()
    layers.register_forward_hook(lambda *arguments: calls.append(1))
    for inputs in (torch.randn(5, 3), torch.randn(5, 3, requires_grad=True)):
        first, second = split_gradients(layers, inputs)
        assert first.requires_grad == inputs.requires_grad and second.requires_grad
    assert len(calls) == 2


def test_frozen_modules_pass_gradients_and_are_unfrozen_after_an_error():
    layers, inputs = network(), torch.randn(5, 3, requires_grad=True)
    layers[0].bias.requires_grad_(False)  # stays frozen
    with pytest.raises(ZeroDivisionError), frozen(layers):
        layers(inputs).sum().backward()
        raise ZeroDivisionError
    assert inputs.grad is not None and all(weight.grad is None for weight in layers.parameters())
    assert [name for name, weight in layers.named_parameters() if not weight.requires_grad] == ["0.bias"]
