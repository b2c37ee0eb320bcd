"""The actor q(a | s): feature to a distribution over actions."""

import math

import torch
from torch import nn
from torch.nn import functional

from dreamer.modules.distributions import OneHotCategorical, TanhNormal
from dreamer.modules.layers import initialize, mlp


class Actor(nn.Module):
    """(..., F) → a distribution over (..., A) with `rsample`, `entropy` and `mode`.

    Continuous actions (Appendix A): tanh of a Normal with mean = mean_scale · tanh(x / mean_scale)
    and std = softplus(y + softplus⁻¹(init_std)) + min_std. Discrete actions: a one-hot categorical
    whose samples pass their gradient straight through to the probabilities.
    """

    def __init__(
        self,
        feature_size,
        action_size,
        discrete,
        hidden_size,
        num_layers,
        activation,
        min_std,
        init_std,
        mean_scale,
    ):
        super().__init__()
        output_size = action_size if discrete else 2 * action_size
        self.network = mlp(feature_size, output_size, hidden_size, num_layers, activation).apply(initialize)
        self.discrete = discrete
        self.min_std = min_std
        self.raw_init_std = init_std + math.log(-math.expm1(-init_std))  # softplus⁻¹
        self.mean_scale = mean_scale

    def forward(self, feature):
        output = self.network(feature)
        if self.discrete:
            return OneHotCategorical(logits=output)
        mean, std = output.chunk(2, -1)
        mean = self.mean_scale * torch.tanh(mean / self.mean_scale)
        return TanhNormal(mean, functional.softplus(std + self.raw_init_std) + self.min_std)
