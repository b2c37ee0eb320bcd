import pytest
import torch

from dreamer.modules.gradients import frozen, plain_split_gradients, split_gradients
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
    for form in (split_gradients, plain_split_gradients):
        assert all(map(torch.equal, gradients(form, layers, inputs), [to_inputs, *to_weights]))
        assert all(map(torch.equal, form(layers, inputs), 2 * [layers(inputs)]))


def test_the_network_runs_once():
    calls, layers = [], network()
    layers.register_forward_hook(lambda *arguments: calls.append(1))
    for inputs in (torch.randn(5, 3), torch.randn(5, 3, requires_grad=True)):
        first, second = split_gradients(layers, inputs)
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
