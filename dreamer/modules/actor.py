"""The actor q(a | s): feature to a distribution over actions."""

import math

import torch
from torch import nn
from torch.nn import functional

from dreamer.modules.distributions import DiagonalNormal, OneHotCategorical, TanhNormal, TruncatedNormal
from dreamer.modules.latents import mixed_log_probs
from dreamer.modules.layers import mlp


class Actor(nn.Module):
    """(..., F) → a distribution over (..., A) with `rsample`, `sample`, `log_prob`, `entropy` and `mode`.

    policy: a function of the network's output, (..., output_size), such as those below. layers: of the network.
    """

    def __init__(self, feature_size, output_size, policy, discrete, **layers):
        super().__init__()
        self.network = mlp(feature_size, output_size, **layers)
        self.policy, self.discrete = policy, discrete

    def forward(self, feature):
        return self.policy(self.network(feature))


def tanh_normal(output, mean_scale, init_std, min_std):
    """Dreamer, Appendix A: tanh of a Normal with mean = mean_scale · tanh(x / mean_scale)
    and std = softplus(y + softplus⁻¹(init_std)) + min_std."""
    mean, std = output.chunk(2, -1)
    mean = mean_scale * torch.tanh(mean / mean_scale)
    raw_init_std = init_std + math.log(-math.expm1(-init_std))  # softplus⁻¹
    return TanhNormal(mean, functional.softplus(std + raw_init_std) + min_std)


def truncated_normal(output, min_std):
    """DreamerV2's: a Normal with mean = tanh(x) and std = 2 σ(y / 2) + min_std, truncated to [-1, 1]."""
    mean, std = output.chunk(2, -1)
    return TruncatedNormal(torch.tanh(mean), 2 * torch.sigmoid(std / 2) + min_std)


def bounded_normal(output, min_std, max_std):
    """DreamerV3's: a Normal with mean = tanh(x) and std = (max_std - min_std) σ(y + 2) + min_std. Its samples may lie
    beyond [-1, 1]."""
    mean, std = output.chunk(2, -1)
    return DiagonalNormal(torch.tanh(mean), (max_std - min_std) * torch.sigmoid(std + 2) + min_std)


def one_hot(output, unimix):
    """Discrete actions: a one-hot categorical, of which a share `unimix` is uniform (DreamerV3)."""
    return OneHotCategorical(mixed_log_probs(output, unimix))
