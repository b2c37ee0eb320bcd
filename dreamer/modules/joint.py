"""Actions of several parts, concatenated one-hot vectors and numbers, and the distribution over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch

from dreamer.modules.categorical import OneHotCategorical
from dreamer.modules.distributions import ActionDistribution


class Group(NamedTuple):
    """Neighbouring parts of an action that are computed together."""

    parts: int  # number of parts
    classes: int  # size of the one-hot vector that each part is; 0: each is a number

    @property
    def size(self) -> int:
        """The length in the action."""
        return self.parts * (self.classes or 1)

    @property
    def outputs(self) -> int:
        """The number of the actor's outputs: a logit for each class, or two for each number."""
        return self.parts * (self.classes or 2)


def group_parts(classes: Sequence[int]) -> tuple[Group, ...]:
    """Return the groups of an action. classes: the size of the one-hot vector of each part, or 0 for a number."""
    return tuple(Group(len(list(run)), count) for count, run in groupby(classes))


class OneHots:
    """A distribution over G concatenated one-hot vectors of C classes, which are independent: (..., G · C)."""

    def __init__(self, log_probs: torch.Tensor, straight_through: bool):
        """log_probs: (..., G, C), normalised. straight_through: whether `rsample` passes a gradient to them."""
        self.distribution = OneHotCategorical(log_probs, event_dims=2)
        self.straight_through = straight_through

    def rsample(self) -> torch.Tensor:
        if self.straight_through:
            return self.distribution.rsample().flatten(-2)
        return self.sample()

    def sample(self) -> torch.Tensor:
        return self.distribution.sample().flatten(-2)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return self.distribution.log_prob(value.unflatten(-1, self.distribution.log_probs.shape[-2:]))

    def entropy(self) -> torch.Tensor:
        return self.distribution.entropy()

    @property
    def mode(self) -> torch.Tensor:
        return self.distribution.mode.flatten(-2)


class Joint:
    """A distribution over actions (..., A) of several groups, which are independent of each other."""

    def __init__(self, distributions: Sequence[ActionDistribution], groups: Sequence[Group]):
        """distributions: one for each group."""
        self.distributions, self.groups = distributions, groups

    def rsample(self) -> torch.Tensor:
        """Sample (..., A), differentiable where the groups' samples are."""
        return torch.cat([distribution.rsample() for distribution in self.distributions], -1)

    def sample(self) -> torch.Tensor:
        """Sample (..., A) without gradient."""
        return torch.cat([distribution.sample() for distribution in self.distributions], -1)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return ln p(value), (..., A) → (...): the sum over all parts."""
        log_probs = [distribution.log_prob(part) for distribution, part, _ in self._by_group(value)]
        return torch.stack(log_probs).sum(0)

    def discrete_log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return ln p of the one-hot vectors in value, (..., A) → (...). There must be one at least."""
        log_probs = []
        for distribution, part, group in self._by_group(value):
            if group.classes:
                log_probs.append(distribution.log_prob(part))
        return torch.stack(log_probs).sum(0)

    def entropy(self) -> torch.Tensor:
        """Return the entropy (...), in nats: the sum over all parts."""
        return torch.stack([distribution.entropy() for distribution in self.distributions]).sum(0)

    @property
    def mode(self) -> torch.Tensor:
        """The most likely action, (..., A)."""
        return torch.cat([distribution.mode for distribution in self.distributions], -1)

    def _by_group(self, value: torch.Tensor) -> Iterator[tuple[ActionDistribution, torch.Tensor, Group]]:
        """Yield each group's distribution, its part of the value and the group."""
        parts = value.split([group.size for group in self.groups], -1)
        return zip(self.distributions, parts, self.groups, strict=True)
