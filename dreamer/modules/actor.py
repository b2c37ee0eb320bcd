"""The actor q(a | s): feature to a distribution over actions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dreamer.modules.categorical import OneHotCategorical
from dreamer.modules.distributions import ActionDistribution, DiagonalNormal, TanhNormal, TruncatedNormal
from dreamer.modules.joint import Group, Joint, OneHots
from dreamer.modules.latents import mixed_log_probs
from dreamer.modules.layers import mlp


class Actor(nn.Module):
    """(..., F) → a distribution over actions (..., A)."""

    def __init__(
        self,
        feature_size: int,
        output_size: int,
        policy: Callable[[torch.Tensor], ActionDistribution],
        groups: Sequence[Group],
        **layers: Any,
    ):
        """policy: the network's output (..., output_size) → a distribution, as the functions below.

        groups: of the action. layers: arguments of `mlp`.
        """
        super().__init__()
        self.network = mlp(feature_size, output_size, **layers)
        self.policy = policy
        self.groups = tuple(groups)

    @property
    def action_size(self) -> int:
        """The length A of an action."""
        return sum(group.size for group in self.groups)

    @property
    def discrete(self) -> bool:
        """Whether all parts of an action are one-hot vectors."""
        return all(group.classes for group in self.groups)

    @property
    def continuous(self) -> bool:
        """Whether all parts of an action are numbers."""
        return not any(group.classes for group in self.groups)

    def forward(self, feature: torch.Tensor) -> ActionDistribution:
        return self.policy(self.network(feature))


def tanh_normal(output: torch.Tensor, mean_scale: float, init_std: float, min_std: float) -> TanhNormal:
    """Return tanh of a Normal, from [x, y] (..., 2A) (Dreamer, Appendix A): its mean is mean_scale · tanh(x /
    mean_scale), its std softplus(y + softplus⁻¹(init_std)) + min_std."""
    mean, std = output.chunk(2, -1)
    mean = mean_scale * torch.tanh(mean / mean_scale)
    raw_init_std = init_std + math.log(-math.expm1(-init_std))  # softplus⁻¹
    return TanhNormal(mean, functional.softplus(std + raw_init_std) + min_std)


def truncated_normal(output: torch.Tensor, min_std: float) -> TruncatedNormal:
    """Return a Normal with mean = tanh(x) and std = 2 σ(y / 2) + min_std, truncated to [-1, 1], from [x, y] (..., 2A)
    (DreamerV2)."""
    mean, std = output.chunk(2, -1)
    return TruncatedNormal(torch.tanh(mean), 2 * torch.sigmoid(std / 2) + min_std)


def bounded_normal(output: torch.Tensor, min_std: float, max_std: float) -> DiagonalNormal:
    """Return a Normal with mean = tanh(x) and std = (max_std - min_std) σ(y + 2) + min_std, from [x, y] (..., 2A)
    (DreamerV3). Its samples may lie beyond [-1, 1]."""
    mean, std = output.chunk(2, -1)
    return DiagonalNormal(torch.tanh(mean), (max_std - min_std) * torch.sigmoid(std + 2) + min_std)


def one_hot(output: torch.Tensor, unimix: float) -> OneHotCategorical:
    """Return a distribution over one-hot actions, from logits (..., A). A share `unimix` is uniform (DreamerV3)."""
    return OneHotCategorical(mixed_log_probs(output, unimix))


def joint(
    output: torch.Tensor,
    groups: Sequence[Group],
    continuous: Callable[[torch.Tensor], ActionDistribution],
    unimix: float,
    straight_through: bool,
) -> Joint:
    """Return a distribution over actions of several parts, from the concatenated outputs for each group.

    continuous: returns the distribution of a group of numbers from its outputs. unimix: as for `one_hot`.
    straight_through: as for `OneHots`.
    """
    distributions: list[ActionDistribution] = []
    group_outputs = output.split([group.outputs for group in groups], -1)
    for group, group_output in zip(groups, group_outputs, strict=True):
        if group.classes:
            logits = group_output.unflatten(-1, (group.parts, group.classes))
            distributions.append(OneHots(mixed_log_probs(logits, unimix), straight_through))
        else:
            distributions.append(continuous(group_output))
    return Joint(distributions, groups)
