"""An actor with its critic, and two things that follow them: a slow critic and the scale of the returns."""

from copy import deepcopy

import torch
from torch import nn

from dreamer import distributed
from dreamer.algorithms.optim import make_optimizer, step_together


class ActorCritic:
    """The networks of one behaviour and their optimisers. Plan2Explore has two: the task's and the explorer's.

    config: the sub-tree `parameters.dreamer`. slow_critic: a `SlowCritic` or None. return_scale: a `ReturnScale` or
    None. prefix: of the networks' names in a checkpoint.
    """

    def __init__(self, config, actor, critic, slow_critic=None, return_scale=None, prefix=""):
        self.actor, self.critic, self.slow_critic, self.return_scale = actor, critic, slow_critic, return_scale
        self.returns_from_slow_critic = config.slow_critic == "target"
        self.held_to_slow_critic = config.slow_critic == "regularizer"
        self.actor_gradient = config.actor_gradient
        if self.actor_gradient == "auto":  # DreamerV2
            self.actor_gradient = "reinforce" if actor.discrete else "dynamics"
        self.through_dynamics = self.actor_gradient in ("dynamics", "both")
        self.actor_optimizer = make_optimizer(config, actor, config.actor_learning_rate)
        self.critic_optimizer = make_optimizer(config, critic, config.critic_learning_rate)
        networks = {"actor": actor, "critic": critic, "slow_critic": slow_critic, "return_scale": return_scale}
        self.networks = {f"{prefix}{name}": network for name, network in networks.items() if network}
        self.optimizers = {f"{prefix}actor": self.actor_optimizer, f"{prefix}critic": self.critic_optimizer}

    def values(self, prediction, feature):
        """Return the values that returns are computed from, and those that the critic is held to or None: (..., ).

        prediction: what the critic returned for `feature` (..., F).
        """
        slow_value = self.slow_critic(feature).mean if self.slow_critic else None
        value = slow_value if self.returns_from_slow_critic else prediction.mean
        return value, slow_value if self.held_to_slow_critic else None

    def scale(self, returns):
        """Return what the actor's loss divides `returns` (N, K) by: 1, or their range (DreamerV3)."""
        return self.return_scale(returns.detach()) if self.return_scale else 1

    def step(self, actor_loss, critic_loss):
        """Make one gradient step of the actor and one of the critic. Return the norms of the gradients."""
        losses = [(actor_loss, [self.actor_optimizer]), (critic_loss, [self.critic_optimizer])]
        actor_norm, critic_norm = step_together(losses)
        self.follow()
        return {"grad_norm/actor": actor_norm, "grad_norm/critic": critic_norm}

    def follow(self):
        """Let the slow critic, if there is one, follow the critic. Call it after each step of the critic."""
        if self.slow_critic:
            self.slow_critic.follow(self.critic)


class SlowCritic(nn.Module):
    """A critic that follows another one: every `interval` updates, the first included, its weights move by `fraction`
    of the way, all of it if that is 1."""

    def __init__(self, critic, interval, fraction):
        """critic: a network of its own, which is kept."""
        super().__init__()
        self.critic = critic.requires_grad_(False)
        self.interval, self.fraction = interval, fraction
        self.register_buffer("updates", torch.zeros((), device=next(critic.parameters()).device))

    def forward(self, feature):
        return self.critic(feature)

    @torch.no_grad()
    def follow(self, critic):
        """Move towards `critic`, if this update is one of every `interval`."""
        step = self.fraction * (self.updates % self.interval == 0).float()
        for slow, fast in zip(self.critic.parameters(), critic.parameters(), strict=True):
            slow.lerp_(fast, step)
        self.updates += 1


def slow_copy(critic, make_critic, interval, fraction):
    """Return a `SlowCritic` of `critic`: a copy, or at first another network where it will be replaced as a whole
    (fraction 1, DreamerV2)."""
    return SlowCritic(make_critic() if fraction == 1 else deepcopy(critic), interval, fraction)


class ReturnScale(nn.Module):
    """The range from the 5th to the 95th percentile of the returns, in moving averages that start at 0, but at least 1
    (DreamerV3, Equation 11)."""

    RATE, LOW, HIGH, LEAST = 0.01, 0.05, 0.95, 1.0

    def __init__(self, device=None):
        super().__init__()
        self.register_buffer("range", torch.zeros(2, device=device))
        # A buffer, since a CUDA graph may copy nothing from the host.
        self.register_buffer("quantiles", torch.tensor([self.LOW, self.HIGH], device=device), persistent=False)

    def forward(self, returns):
        """Take in the returns (N, K), those of all data-parallel workers. Return the scale, a scalar."""
        self.range.lerp_(torch.quantile(distributed.gathered(returns).float(), self.quantiles), self.RATE)
        return (self.range[1] - self.range[0]).clamp(min=self.LEAST)
