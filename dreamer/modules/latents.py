"""The stochastic part z_t of the latent state: its distribution, and the network that predicts it.

A kind of latent consists of `LatentParameters` and of a network that maps inputs (..., inputs) to them. The network has
`parameters_type`, their class, and `noise`, which draws the noise of samples. The RSSM uses nothing else of it. The
losses use the distribution's `entropy` and its KL divergence, which `register_kl` defines beside its class.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.distributions import Distribution
from torch.nn import functional

from dreamer.modules.categorical import OneHotCategorical
from dreamer.modules.distributions import DiagonalNormal
from dreamer.modules.kernels import over_classes
from dreamer.modules.layers import mlp


class LatentParameters(Protocol):
    """A NamedTuple of the parameters of z_t's distribution, each a tensor (..., ·)."""

    @property
    def distribution(self) -> Distribution: ...

    def sample(self, noise: torch.Tensor | None = None) -> torch.Tensor: ...

    def __iter__(self) -> Iterator[torch.Tensor]: ...


class Gaussian(NamedTuple):
    """Parameters of a Gaussian with independent components."""

    mean: torch.Tensor  # (..., S)
    std: torch.Tensor  # (..., S)

    @property
    def distribution(self) -> DiagonalNormal:
        """The distribution over z (..., S)."""
        return DiagonalNormal(self.mean, self.std)

    def sample(self, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Sample z (..., S), differentiable in both parameters. noise: as from `GaussianModel.noise`; None draws it."""
        if noise is None:
            return self.distribution.rsample()
        return self.mean + self.std * noise


class GaussianModel(nn.Module):
    """(..., inputs) → Gaussian (..., S): an MLP to the mean and to std = softplus(·) + min_std."""

    parameters_type = Gaussian

    def __init__(self, input_size: int, stochastic_size: int, min_std: float, **layers: Any):
        super().__init__()
        self.network = mlp(input_size, 2 * stochastic_size, **layers)
        self.size, self.min_std = stochastic_size, min_std

    def forward(self, inputs: torch.Tensor) -> Gaussian:
        mean, std = self.network(inputs).chunk(2, -1)
        return Gaussian(mean, functional.softplus(std) + self.min_std)

    def noise(self, *shape: int) -> torch.Tensor:
        """Draw the standard normal noise of samples, (*shape, S)."""
        return torch.randn(*shape, self.size, device=next(self.parameters()).device)


class Categorical(NamedTuple):
    """Parameters of G categorical distributions of C classes each (DreamerV2, Section 2.1)."""

    log_probs: torch.Tensor  # (..., G, C)

    @property
    def distribution(self) -> OneHotCategorical:
        """The distribution over one-hot vectors (..., G, C)."""
        return OneHotCategorical(self.log_probs, event_dims=2)

    def sample(self, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Sample z (..., G·C), concatenated one-hot vectors, with straight-through gradients to the probabilities.

        noise: as from `CategoricalModel.noise`; None draws it.
        """
        return self.distribution.rsample(noise).flatten(-2)


class CategoricalModel(nn.Module):
    """(..., inputs) → Categorical (..., G, C): an MLP to the logits.

    A share `unimix` of each distribution is uniform (DreamerV3), in samples, gradients and KL alike.
    """

    parameters_type = Categorical

    def __init__(self, input_size: int, groups: int, classes: int, unimix: float, **layers: Any):
        super().__init__()
        self.network = mlp(input_size, groups * classes, **layers)
        self.shape, self.unimix = (groups, classes), unimix

    def forward(self, inputs: torch.Tensor) -> Categorical:
        return Categorical(mixed_log_probs(self.network(inputs).unflatten(-1, self.shape), self.unimix))

    def noise(self, *shape: int) -> torch.Tensor:
        """Draw the uniform noise of samples, (*shape, G, 1)."""
        return torch.rand(*shape, self.shape[0], 1, device=next(self.parameters()).device)


def mixed_log_probs(logits: torch.Tensor, unimix: float) -> torch.Tensor:
    """Return ln((1 - unimix) · softmax + unimix / C), (..., C) → (..., C)."""
    if unimix == 0:
        return over_classes(torch.log_softmax, logits)
    return ((1 - unimix) * over_classes(torch.softmax, logits) + unimix / logits.shape[-1]).log()
