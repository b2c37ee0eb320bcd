"""Building blocks that every network here is made of.

norm: of each hidden layer, before its activation: "none", "layer" (with the epsilon of DreamerV2's code) or "rms"
(DreamerV3). initialization: "glorot" (Dreamer, DreamerV2: Keras' defaults) or "truncated_normal" (DreamerV3).
"""

import math

import torch
from torch import nn

from dreamer.modules.kernels import block_linear, rms_norm


def mlp(
    input_size,
    output_size,
    hidden_size,
    num_layers,
    activation,
    norm="none",
    initialization="glorot",
    outscale=1.0,
    linear=nn.Linear,
):
    """`num_layers` hidden layers of `hidden_size` with `activation` (a class name of torch.nn), then a linear one,
    whose initial weights are multiplied by `outscale`."""
    sizes = [input_size] + [hidden_size] * num_layers
    layers = []
    for size, next_size in zip(sizes, sizes[1:], strict=False):
        layers += [linear(size, next_size), *normed_activation(next_size, activation, norm)]
    network = Float32Sequential(*layers, linear(sizes[-1], output_size)).apply(INITIALIZE[initialization])
    if outscale != 1:
        with torch.no_grad():
            network[-1].weight.mul_(outscale)
    return network


def normed_activation(size, activation, norm, kind=lambda norm: norm):
    """What follows a linear layer of `size` outputs, as a list. kind: wraps the norm."""
    norms = [] if norm == "none" else [kind(NORMS[norm](size))]
    return [*norms, getattr(nn, activation)()]


class Float32Sequential(nn.Sequential):
    """Gives float32, whatever the precision of the products within."""

    def forward(self, inputs):
        return super().forward(inputs).float()


def bounded(action):
    """Each component beyond [-1, 1] as -1 or 1: a / max(1, |a|) with the maximum as a constant (DreamerV3)."""
    return action / action.abs().clamp(min=1).detach()


class LayerNorm(nn.LayerNorm):
    def __init__(self, size):
        super().__init__(size, eps=1e-3)


class RMSNorm(nn.Module):
    """x · (mean(x²) + 1e-4)^(-1/2) · scale over the last axis, in float32."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, inputs):
        return rms_norm(inputs.float(), self.weight)


NORMS = {"layer": LayerNorm, "rms": RMSNorm}


class ChannelNorm(nn.Module):
    """A norm over the channels of each pixel: (N, C, height, width) → the same."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, image):
        return self.norm(image.movedim(1, -1)).movedim(-1, 1)


class EnsembleLinear(nn.Module):
    """K linear layers in one batched product: (K, N, input) → (K, N, output), each member its own weights."""

    def __init__(self, ensemble_size, input_size, output_size):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(ensemble_size, input_size, output_size))
        self.bias = nn.Parameter(torch.empty(ensemble_size, 1, output_size))

    def forward(self, inputs):
        return torch.baddbmm(self.bias, inputs, self.weight)


class BlockLinear(nn.Module):
    """`blocks` linear layers side by side: (N, input) and, for all of them alike, (N, shared) → (N, output).

    Block k reads the k-th part of the input and all that is shared, and gives the k-th part of the output.
    """

    def __init__(self, input_size, output_size, blocks, shared_size=0):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks, input_size // blocks + shared_size, output_size // blocks))
        self.bias = nn.Parameter(torch.empty(output_size))

    def forward(self, inputs, shared=None):
        return block_linear(inputs, shared, self.weight, self.bias)


def initialize_glorot(module):
    """Initialise as the released code of Dreamer and DreamerV2 does (Keras' defaults): Glorot-uniform weights, zero
    biases, orthogonal recurrent weights. Use as `network.apply(initialize_glorot)`."""
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, (EnsembleLinear, BlockLinear)):
        for weight in module.weight:
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.GRUCell):
        nn.init.xavier_uniform_(module.weight_ih)
        nn.init.orthogonal_(module.weight_hh)
        nn.init.zeros_(module.bias_ih)
        nn.init.zeros_(module.bias_hh)


def initialize_truncated_normal(module):
    """Initialise as the released code of DreamerV3 does: a normal truncated at two of its standard deviations, scaled
    to a variance of 1 / fan in; zero biases. The fan in of a BlockLinear counts the inputs of all its blocks."""
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, EnsembleLinear, BlockLinear)):
        std = 1.1368 / math.sqrt(fan_in(module))
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.GRUCell):
        initialize_glorot(module)  # DreamerV3 has none


def fan_in(module):
    if isinstance(module, EnsembleLinear):
        return module.weight.shape[1]
    if isinstance(module, BlockLinear):
        return module.weight.shape[0] * module.weight.shape[1]
    if isinstance(module, nn.ConvTranspose2d):
        return module.weight[:, 0].numel()
    return module.weight[0].numel()


INITIALIZE = {"glorot": initialize_glorot, "truncated_normal": initialize_truncated_normal}
