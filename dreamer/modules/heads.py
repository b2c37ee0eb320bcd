"""Heads: distributions of numbers that are predicted from a latent state."""

from typing import Any

import torch
from torch import nn
from torch.distributions import Bernoulli

from dreamer.errors import ConfigError
from dreamer.modules.categorical import TwoHot, symexp
from dreamer.modules.distributions import UnitNormal
from dreamer.modules.layers import mlp


class OutputDistribution(nn.Module):
    """A module that maps a network's output (..., output_size) to a distribution over (...)."""

    output_size: int


class Head(nn.Module):
    """(..., F) → a distribution over (...): an MLP and a distribution of its output.

    Dreamer has three: the reward model p(r_t | s_t) of the reward received on arriving at s_t, the continue model p(the
    task continues after s_t), and the critic v(s_τ).
    """

    def __init__(self, feature_size: int, distribution: OutputDistribution, **layers: Any):
        """distribution: of one of the classes below. layers: arguments of `mlp`."""
        super().__init__()
        self.network = mlp(feature_size, distribution.output_size, **layers)
        self.distribution = distribution

    def forward(self, feature: torch.Tensor) -> Any:
        return self.distribution(self.network(feature))


class NormalHead(OutputDistribution):
    """(..., 1), the mean → UnitNormal (...)."""

    output_size = 1

    def forward(self, output: torch.Tensor) -> UnitNormal:
        return UnitNormal(output.squeeze(-1), event_dims=0)


class BernoulliHead(OutputDistribution):
    """(..., 1), the logit → Bernoulli (...)."""

    output_size = 1

    def forward(self, output: torch.Tensor) -> Bernoulli:
        return Bernoulli(logits=output.squeeze(-1))


class SymexpTwoHot(OutputDistribution):
    """(..., C), logits → TwoHot (...) with C bins symexp(-20 … 20), in equal steps (DreamerV3, Equation 10: C = 255).

    Raises ConfigError if C is even: no bin would be 0.
    """

    bins: torch.Tensor  # (C,)

    def __init__(self, bins: int = 255) -> None:
        super().__init__()
        if bins % 2 == 0:
            raise ConfigError(f"bins: expected an odd number, so that one bin is 0, found {bins}")
        self.output_size = bins
        negative = symexp(torch.linspace(-20, 0, bins // 2 + 1))
        self.register_buffer("bins", torch.cat([negative, -negative[:-1].flip(0)]), persistent=False)

    def forward(self, output: torch.Tensor) -> TwoHot:
        return TwoHot(output, self.bins)
