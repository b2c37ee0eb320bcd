from functools import partial
from itertools import pairwise
from math import sqrt

import pytest
import torch
from torch import nn

from dreamer.modules.kernels import plain_block_linear, plain_rms_norm, rms_norm
from dreamer.modules.layers import (
    BlockLinear,
    ChannelNorm,
    EnsembleLinear,
    LayerNorm,
    RMSNorm,
    initialize_glorot,
    initialize_truncated_normal,
    mlp,
)


@pytest.mark.parametrize("num_layers, activation", [(0, "ELU"), (1, "ReLU"), (4, "Tanh")])
def test_mlp_has_activated_hidden_layers_and_a_linear_output(num_layers, activation):
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
def test_glorot_initialization_is_uniform_in_its_bound(layer, fans):
    """Each ensemble member uses the fans of its own layer, not of the stacked tensor, and differs from the others."""
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


def test_mlp_accepts_another_linear_layer():
    network = mlp(5, 3, hidden_size=7, num_layers=2, activation="ELU", linear=partial(EnsembleLinear, 4))
    assert [tuple(layer.weight.shape) for layer in network[::2]] == [(4, 5, 7), (4, 7, 7), (4, 7, 3)]
    assert network.apply(initialize_glorot)(torch.zeros(4, 2, 5)).shape == (4, 2, 3)


@pytest.mark.parametrize(
    "layer, fan_in",
    [
        (nn.Linear(100, 300), 100),
        (nn.Conv2d(12, 96, 5), 12 * 25),
        (EnsembleLinear(4, 100, 300), 100),
        (BlockLinear(160, 1600, 8), 160),  # of all blocks
        (BlockLinear(160, 800, 8, shared_size=30), 160 + 8 * 30),
    ],
)
def test_truncated_normal_initialization_has_variance_one_over_fan_in(layer, fan_in):
    """Weights are cut at two standard deviations and have a variance of 1 / fan in after the cut."""
    torch.manual_seed(0)
    layer.apply(initialize_truncated_normal)
    bound = 2 * 1.1368 / sqrt(fan_in)
    assert 0.95 * bound < layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(1 / sqrt(fan_in), rel=0.02)
    assert (layer.bias == 0).all()


def test_block_linear_equals_separate_blocks():
    layer = BlockLinear(12, 20, 4, shared_size=5)
    nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    inputs, shared = torch.randn(7, 12), torch.randn(7, 5)
    expected = plain_block_linear(inputs, shared, layer.weight, layer.bias)
    torch.testing.assert_close(layer(inputs, shared), expected)
    with torch.no_grad():  # uses another implementation
        torch.testing.assert_close(layer(inputs, shared), expected)
    unshared = BlockLinear(12, 20, 4)
    nn.init.normal_(unshared.weight), nn.init.normal_(unshared.bias)
    torch.testing.assert_close(unshared(inputs), plain_block_linear(inputs, None, unshared.weight, unshared.bias))


@pytest.mark.parametrize("outscale", [0.0, 0.01])
def test_outscale_scales_the_last_layers_initial_weights(outscale):
    torch.manual_seed(0)
    first = mlp(50, 60, 40, 1, "SiLU", "rms", "truncated_normal")
    torch.manual_seed(0)
    scaled = mlp(50, 60, 40, 1, "SiLU", "rms", "truncated_normal", outscale=outscale)
    assert torch.equal(first[0].weight, scaled[0].weight)
    torch.testing.assert_close(scaled[-1].weight, outscale * first[-1].weight)


@pytest.mark.parametrize("norm, kind", [("none", None), ("layer", LayerNorm), ("rms", RMSNorm)])
def test_mlp_has_a_norm_before_each_activation(norm, kind):
    network = mlp(5, 3, hidden_size=7, num_layers=2, activation="SiLU", norm=norm)
    assert [type(layer) for layer in network] == 2 * [nn.Linear, *([kind] if kind else []), nn.SiLU] + [nn.Linear]


def test_rms_norm_gradient_is_correct():
    torch.manual_seed(0)
    x, scale = torch.randn(3, 5, 4, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    torch.testing.assert_close(rms_norm(x, scale), plain_rms_norm(x, scale))
    assert torch.autograd.gradcheck(rms_norm, (x.requires_grad_(), scale.requires_grad_()))


def test_norms_match_the_authors_code():
    """LayerNorm has Keras' epsilon; RMSNorm has its epsilon in the root, a scale and no bias, and returns float32."""
    x = torch.tensor([1.0, -2.0, 3.0, 0.5])
    variance = x.var(unbiased=False)
    torch.testing.assert_close(LayerNorm(4)(0.01 * x), 0.01 * (x - x.mean()) / (1e-4 * variance + 1e-3).sqrt())
    rms = RMSNorm(4)
    torch.testing.assert_close(rms(x), torch.tensor([0.529805, -1.059611, 1.589417, 0.264903]), atol=1e-5, rtol=0)
    torch.testing.assert_close(rms(0.01 * x), 0.01 * x / (1e-4 * x.square().mean() + 1e-4).sqrt())
    assert [name for name, _ in rms.named_parameters()] == ["weight"] and rms(x.bfloat16()).dtype == torch.float32
    rms.weight.data = torch.arange(4.0)
    image = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(ChannelNorm(rms)(image)[1, :, 2, 4], rms(image[1, :, 2, 4]))
