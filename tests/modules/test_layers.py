from functools import partial
from itertools import pairwise
from math import sqrt

import pytest
import torch
from torch import nn

from dreamer.modules.layers import EnsembleLinear, initialize_glorot, mlp


@pytest.mark.parametrize("num_layers, activation", [(0, "ELU"), (1, "ReLU"), (4, "Tanh")])
def test_so_many_hidden_layers_each_with_the_activation_and_then_a_linear_one(num_layers, activation):
    network = mlp(5, 3, hidden_size=7, num_layers=num_layers, activation=activation)
    assert [type(layer).__name__ for layer in network] == num_layers * ["Linear", activation] + ["Linear"]
    sizes = [5, *num_layers * [7], 3]
    assert [(layer.in_features, layer.out_features) for layer in network[::2]] == list(pairwise(sizes))


@pytest.mark.parametrize(
    "layer, fans",
    [
        (nn.Linear(300, 100), 400),
        (nn.Conv2d(16, 48, 4, 2), 64 * 4 * 4),
        (nn.ConvTranspose2d(48, 16, 5, 2), 64 * 5 * 5),
        (EnsembleLinear(4, 300, 100), 400),
    ],
)
def test_glorot_uniform(layer, fans):
    """Every member of an ensemble in its own sizes, not those of the stacked tensor, and unlike the others."""
    torch.manual_seed(0)
    layer.apply(initialize_glorot)
    bound, members = sqrt(6 / fans), layer.weight if isinstance(layer, EnsembleLinear) else [layer.weight]
    for weight in members:
        assert 0.99 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / sqrt(3), rel=0.02)  # uniform
        assert weight.mean().abs() < 0.02 * bound
    assert (layer.bias == 0).all()
    if len(members) == 4:
        assert (layer.weight.flatten(1).corrcoef() - torch.eye(4)).abs().max() < 0.05


def test_recurrent_weights_are_orthogonal():
    torch.manual_seed(0)
    cell = nn.GRUCell(30, 50).apply(initialize_glorot)
    torch.testing.assert_close(cell.weight_hh.T @ cell.weight_hh, torch.eye(50), atol=1e-5, rtol=0)
    bound = sqrt(6 / (30 + 3 * 50))
    assert 0.99 * bound < cell.weight_ih.abs().max() <= bound
    assert (cell.bias_ih == 0).all() and (cell.bias_hh == 0).all()


def test_mlp_of_other_linear_layers():
    network = mlp(5, 3, hidden_size=7, num_layers=2, activation="ELU", linear=partial(EnsembleLinear, 4))
    assert [tuple(layer.weight.shape) for layer in network[::2]] == [(4, 5, 7), (4, 7, 7), (4, 7, 3)]
    assert network.apply(initialize_glorot)(torch.zeros(4, 2, 5)).shape == (4, 2, 3)
