"""The stochastic part z_t of the latent state: its distribution, and the network that gives it.

A kind of latent is two things: a NamedTuple of its distribution's parameters with `distribution` and `sample`,
and a network that maps anything to such parameters. The RSSM asks for no more.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from dreamer.modules.distributions import DiagonalNormal, OneHotCategorical
from dreamer.modules.kernels import over_classes
from dreamer.modules.layers import mlp


class Gaussian(NamedTuple):
    """Parameters of a Gaussian with independent components."""

    mean: torch.Tensor  # (..., S)
    std: torch.Tensor  # (..., S)

    @property
    def distribution(self):
        return DiagonalNormal(self.mean, self.std)

    def sample(self):
        """(..., S), differentiable in both parameters."""
        return self.distribution.rsample()


class GaussianModel(nn.Module):
    """(..., inputs) → Gaussian (..., S): an MLP to the mean and to std = softplus(·) + min_std."""

    def __init__(self, input_size, stochastic_size, min_std, **layers):
        super().__init__()
        self.network = mlp(input_size, 2 * stochastic_size, **layers)
        self.min_std = min_std

    def forward(self, inputs):
        mean, std = self.network(inputs).chunk(2, -1)
        return Gaussian(mean, functional.softplus(std) + self.min_std)


class Categorical(NamedTuple):
    """Parameters of G categorical distributions of C classes each (DreamerV2, Section 2)."""

    log_probs: torch.Tensor  # (..., G, C)

    @property
    def distribution(self):
        return OneHotCategorical(self.log_probs, event_dims=2)

    def sample(self):
        """(..., G·C): one-hot vectors side by side, whose gradient is straight-through that of the probabilities."""
        return self.distribution.rsample().flatten(-2)


class CategoricalModel(nn.Module):
    """(..., inputs) → Categorical (..., G, C): an MLP to the logits; a share `unimix` of each distribution is uniform
    (DreamerV3), in samples, gradients and divergences alike."""

    def __init__(self, input_size, groups, classes, unimix, **layers):
        super().__init__()
        self.network = mlp(input_size, groups * classes, **layers)
        self.shape, self.unimix = (groups, classes), unimix

    def forward(self, inputs):
        return Categorical(mixed_log_probs(self.network(inputs).unflatten(-1, self.shape), self.unimix))


def mixed_log_probs(logits, unimix):
    """ln((1 - unimix) · softmax + unimix / C), over the last axis of C classes."""
    if unimix == 0:
        return over_classes(torch.log_softmax, logits)
    return ((1 - unimix) * over_classes(torch.softmax, logits) + unimix / logits.shape[-1]).log()
