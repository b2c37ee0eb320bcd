"""An actor with its critic, the slow copy of the critic, and the scale of the returns."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import nn

from dreamer import distributed
from dreamer.algorithms.losses import Imagination
from dreamer.algorithms.optim import Optimizer, make_optimizer, step_together
from dreamer.config.load import Config
from dreamer.modules.actor import Actor
from dreamer.modules.distributions import Prediction
from dreamer.modules.gradients import split_gradients
from dreamer.modules.heads import Head
from dreamer.modules.rssm import State


class Values(NamedTuple):
    """The outputs of the critic and of the slow critic for states (...)."""

    value: torch.Tensor  # (...), v(s), which returns are computed from
    slow_value: torch.Tensor | None  # (...), the values that regularize the critic (DreamerV3)
    output: torch.Tensor  # (..., ·), of the critic's network, for the critic's loss


class ActorCritic:
    """The networks of one behaviour and their optimisers. Plan2Explore has two: the task's and the explorer's."""

    def __init__(
        self,
        config: Config,
        actor: Actor,
        critic: Head,
        slow_critic: SlowCritic | None = None,
        return_scale: ReturnScale | None = None,
        prefix: str = "",
    ):
        """config: the sub-tree `parameters.dreamer`. prefix: of the networks' names in a checkpoint."""
        self.actor, self.critic, self.slow_critic, self.return_scale = actor, critic, slow_critic, return_scale
        self.returns_from_slow_critic = config.slow_critic == "target"
        self.regularized_by_slow_critic = config.slow_critic == "regularizer"
        self.actor_gradient = config.actor_gradient  # as `losses.actor_loss` takes it
        if self.actor_gradient == "auto":  # DreamerV2
            self.actor_gradient = gradient_for(actor)
        self.through_dynamics = self.actor_gradient != "reinforce"  # whether imagination keeps its graph
        self.scan: Callable[[State, int], Imagination] | None = None  # an `ImaginedScan`, in compiled runs
        self.actor_optimizer = make_optimizer(config, actor, config.actor_learning_rate)
        self.critic_optimizer = make_optimizer(config, critic, config.critic_learning_rate)
        self.networks: dict[str, nn.Module] = {f"{prefix}actor": actor, f"{prefix}critic": critic}
        if slow_critic is not None:
            self.networks[f"{prefix}slow_critic"] = slow_critic
        if return_scale is not None:
            self.networks[f"{prefix}return_scale"] = return_scale
        self.optimizers: dict[str, Optimizer] = {
            f"{prefix}actor": self.actor_optimizer,
            f"{prefix}critic": self.critic_optimizer,
        }

    def values(self, feature: torch.Tensor) -> Values:
        """Return the outputs of critic and slow critic for states (..., F).

        Gradients of the output reach only the critic's weights, those of the value only the feature.
        """
        slow_value = None
        if self.slow_critic is not None:
            slow_value = self.slow_critic(feature).mean
        if slow_value is not None and self.returns_from_slow_critic:  # DreamerV2
            return Values(value=slow_value, slow_value=None, output=self.critic.network(feature.detach()))
        output_for_value, output = split_gradients(self.critic.network, feature)
        value = self.critic.distribution(output_for_value).mean
        if not self.regularized_by_slow_critic:
            slow_value = None
        return Values(value, slow_value, output)

    def scale(self, returns: torch.Tensor) -> float | torch.Tensor:
        """Return the number that the actor's loss divides `returns` (N, K) by: 1, or their range (DreamerV3)."""
        if self.return_scale is None:
            return 1
        return self.return_scale(returns.detach())

    def step(self, actor_loss: torch.Tensor, critic_loss: torch.Tensor) -> dict[str, torch.Tensor]:
        """Make one gradient step of the actor and one of the critic. Return the gradients' norms as metrics."""
        optimizers = [self.actor_optimizer, self.critic_optimizer]
        actor_norm, critic_norm = step_together(actor_loss + critic_loss, optimizers)
        self.update_slow_critic()
        return {"grad_norm/actor": actor_norm, "grad_norm/critic": critic_norm}

    def update_slow_critic(self) -> None:
        """Move the slow critic, if there is one, towards the critic. Call it after each step of the critic."""
        if self.slow_critic is not None:
            self.slow_critic.update(self.critic)


def gradient_for(actor: Actor) -> str:
    """Return the `actor_gradient` of DreamerV2 for the kind of an actor's actions."""
    if actor.continuous:
        return "dynamics"
    if actor.discrete:
        return "reinforce"
    return "by_kind"


class SlowCritic(nn.Module):
    """A slow-moving copy of the critic: every `interval` updates, the first included, its weights move by `fraction` of
    the way to the critic's."""

    updates: torch.Tensor

    def __init__(self, critic: Head, interval: int, fraction: float):
        """critic: the network of the copy, which is frozen. fraction: 1 copies the critic."""
        super().__init__()
        self.critic = critic.requires_grad_(False)
        self.interval, self.fraction = interval, fraction
        self.register_buffer("updates", torch.zeros((), device=next(critic.parameters()).device))

    def forward(self, feature: torch.Tensor) -> Prediction:
        """Return the predicted values, (..., F) → (...)."""
        return self.critic(feature)

    @torch.no_grad()
    def update(self, critic: nn.Module) -> None:
        """Count an update of `critic`. In every `interval`-th one, the first included, move towards it."""
        fraction = self.fraction * (self.updates % self.interval == 0).float()  # or 0
        for slow, fast in zip(self.critic.parameters(), critic.parameters(), strict=True):
            slow.lerp_(fast, fraction)
        self.updates += 1


def make_slow_critic(critic: Head, make_critic: Callable[[], Head], interval: int, fraction: float) -> SlowCritic:
    """Return a `SlowCritic` that starts as a copy of `critic`, or with fraction 1 as a new network (DreamerV2)."""
    return SlowCritic(make_critic() if fraction == 1 else deepcopy(critic), interval, fraction)


class ReturnScale(nn.Module):
    """The range from the 5th to the 95th percentile of the returns, at least 1: max(1, S) with the S of DreamerV3,
    Equations 6 and 7. Both percentiles are moving averages that start at 0.
    """

    RATE, LOW, HIGH, LEAST = 0.01, 0.05, 0.95, 1.0

    range: torch.Tensor
    quantiles: torch.Tensor

    def __init__(self, device: torch.device | None = None):
        super().__init__()
        self.register_buffer("range", torch.zeros(2, device=device))  # the averages of both percentiles
        # A buffer, since a CUDA graph may copy nothing from the host.
        self.register_buffer("quantiles", torch.tensor([self.LOW, self.HIGH], device=device), persistent=False)

    def forward(self, returns: torch.Tensor) -> torch.Tensor:
        """Update the averages with the returns (N, K) of all data-parallel workers. Return the scale, a scalar."""
        returns = distributed.gather(returns).float()
        self.range.lerp_(torch.quantile(returns, self.quantiles), self.RATE)
        return (self.range[1] - self.range[0]).clamp(min=self.LEAST)
