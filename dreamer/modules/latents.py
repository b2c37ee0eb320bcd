"""The stochastic part z_t of the latent state: its distribution, and the network that gives it.

A kind of latent is two things: a NamedTuple of its distribution's parameters with `distribution` and `sample`,
and a network with `initial`, which maps anything to such parameters. The RSSM asks for no more.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from dreamer.modules.distributions import diagonal_normal
from dreamer.modules.layers import initialize, mlp


class Gaussian(NamedTuple):
    """Parameters of a Gaussian with independent components."""

    mean: torch.Tensor  # (..., S)
    std: torch.Tensor  # (..., S)

    @property
    def distribution(self):
        return diagonal_normal(self.mean, self.std)

    def sample(self):
        """(..., S), differentiable in both parameters."""
        return self.mean + self.std * torch.randn_like(self.std)


class GaussianModel(nn.Module):
    """(..., inputs) → Gaussian (..., S): an MLP to the mean and to std = softplus(·) + min_std."""

    def __init__(self, input_size, stochastic_size, hidden_size, num_layers, activation, min_std):
        super().__init__()
        self.network = mlp(input_size, 2 * stochastic_size, hidden_size, num_layers, activation).apply(initialize)
        self.stochastic_size = stochastic_size
        self.min_std = min_std

    def forward(self, inputs):
        mean, std = self.network(inputs).chunk(2, -1)
        return Gaussian(mean, functional.softplus(std) + self.min_std)

    def initial(self, batch_size):
        """z_0 (B, S) and its parameters, before anything was seen: zeros."""
        zeros = self.network[-1].weight.new_zeros(batch_size, self.stochastic_size)
        return zeros, Gaussian(zeros, zeros)
