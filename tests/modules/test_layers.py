from functools import partial
from itertools import pairwise
from math import sqrt

import pytest
import torch
from torch import nn

from dreamer.modules.layers import EnsembleLinear, initialize, mlp


@pytest.mark.parametrize("num_layers", [0, 1, 4])
def test_num_layers_counts_hidden_layers(num_layers):
    network = mlp(5, 3, hidden_size=7, num_layers=num_layers, activation="ELU")
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == [5] + [7] * num_layers
    assert [layer.out_features for layer in linear] == [7] * num_layers + [3]
    assert network(torch.zeros(2, 4, 5)).shape == (2, 4, 3)


@pytest.mark.parametrize("activation", ["ELU", "ReLU", "Tanh"])
def test_activation_follows_every_hidden_layer_and_not_the_last(activation):
    network = mlp(5, 3, hidden_size=7, num_layers=2, activation=activation)
    kinds = [type(layer).__name__ for layer in network]
    assert list(pairwise(kinds)) == 2 * [("Linear", activation), (activation, "Linear")]


@pytest.mark.parametrize(
    "layer, fans",
    [
        (nn.Linear(300, 100), 400),
        (nn.Conv2d(16, 48, 4, 2), 64 * 4 * 4),
        (nn.ConvTranspose2d(48, 16, 5, 2), 64 * 5 * 5),
    ],
)
def test_glorot_uniform(layer, fans):
    torch.manual_seed(0)
    layer.apply(initialize)
    bound = sqrt(6 / fans)
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / sqrt(3), rel=0.02)  # uniform
    assert layer.weight.mean().abs() < 0.02 * bound
    assert (layer.bias == 0).all()


def test_recurrent_weights_are_orthogonal():
    torch.manual_seed(0)
    cell = nn.GRUCell(30, 50).apply(initialize)
    torch.testing.assert_close(cell.weight_hh.T @ cell.weight_hh, torch.eye(50), atol=1e-5, rtol=0)
    bound = sqrt(6 / (30 + 3 * 50))
    assert 0.99 * bound < cell.weight_ih.abs().max() <= bound
    assert (cell.bias_ih == 0).all() and (cell.bias_hh == 0).all()


def test_initialize_reaches_every_layer():
    network = nn.Sequential(mlp(5, 3, 7, 2, "ELU"), nn.Sequential(nn.Linear(3, 4))).apply(initialize)
    biases = [parameter for name, parameter in network.named_parameters() if name.endswith("bias")]
    assert len(biases) == 4 and all((bias == 0).all() for bias in biases)


def test_ensemble_linear_is_one_linear_layer_per_member():
    torch.manual_seed(0)
    layer, inputs = EnsembleLinear(3, 5, 4), torch.randn(3, 7, 5)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    outputs = layer(inputs)
    assert outputs.shape == (3, 7, 4)
    for k in range(3):
        expected = nn.functional.linear(inputs[k], layer.weight[k].T, layer.bias[k, 0])
        torch.testing.assert_close(outputs[k], expected)


def test_every_member_of_an_ensemble_is_glorot_uniform_by_itself():
    """In its own sizes, not those of the stacked tensor, and unlike the others."""
    torch.manual_seed(0)
    layer = EnsembleLinear(4, 300, 100).apply(initialize)
    bound = sqrt(6 / 400)
    for weight in layer.weight:
        assert 0.99 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / sqrt(3), rel=0.02)  # uniform
    assert (layer.bias == 0).all()
    assert (layer.weight.flatten(1).corrcoef() - torch.eye(4)).abs().max() < 0.05


def test_mlp_of_other_linear_layers():
    network = mlp(5, 3, hidden_size=7, num_layers=2, activation="ELU", linear=partial(EnsembleLinear, 4))
    assert [tuple(layer.weight.shape) for layer in network[::2]] == [(4, 5, 7), (4, 7, 7), (4, 7, 3)]
    assert network.apply(initialize)(torch.zeros(4, 2, 5)).shape == (4, 2, 3)
