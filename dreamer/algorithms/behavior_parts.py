"""Parts of a behaviour that the configuration chooses, in any version: where the actor's gradient comes from, a slow
critic, and the scale of the returns.

Shapes: N trajectories, K actions in each, A action size.
"""

from copy import deepcopy

import torch
from torch import nn

from dreamer import ranks


class Dynamics:
    """The returns themselves: their gradient reaches the actions through the imagined dynamics (Dreamer)."""

    differentiable = True  # whether imagination must be

    def __call__(self, policy, action, targets, scale):
        """What the actor is to raise, (N, K).

        policy: the distributions of the actions a_1 … a_K. action: (N, H, A), those drawn. targets: `Targets`.
        scale: what returns are divided by.
        """
        return targets.returns / scale


class Reinforce:
    """Actions that were better than expected become more likely: the score-function gradient (DreamerV2, V3)."""

    differentiable = False

    def __call__(self, policy, action, targets, scale):
        advantage = (targets.returns - targets.baseline) / scale
        count = advantage.shape[1]
        return policy.log_prob(action[:, :count].detach()) * advantage.detach()


class Both:
    """A share of the first, the rest of the second (an option of DreamerV2's code, with a share of 0.1)."""

    differentiable = True
    share = 0.1

    def __call__(self, *arguments):
        return torch.lerp(Reinforce()(*arguments), Dynamics()(*arguments), self.share)


OBJECTIVES = {"dynamics": Dynamics(), "reinforce": Reinforce(), "both": Both()}


def objective(actor_gradient, discrete):
    """The configuration's. "auto" (DreamerV2): REINFORCE for discrete actions, the dynamics for continuous ones."""
    if actor_gradient == "auto":
        actor_gradient = "reinforce" if discrete else "dynamics"
    return OBJECTIVES[actor_gradient]


class SlowCritic(nn.Module):
    """A critic that follows another one: every `interval` updates, the first included, it moves by `fraction` of the
    way, to a copy if that is 1. It is a copy from the beginning if it moves by less."""

    def __init__(self, critic, interval, fraction):
        """critic: a new network; where the fraction is 1 it stays what it is until the first update."""
        super().__init__()
        self.critic = critic.requires_grad_(False)
        self.interval, self.fraction = interval, fraction
        self.register_buffer("updates", torch.zeros((), device=next(critic.parameters()).device))

    def forward(self, feature):
        return self.critic(feature)

    @torch.no_grad()
    def follow(self, critic):
        """To be called after each update of the critic."""
        step = self.fraction * (self.updates % self.interval == 0).float()
        for slow, fast in zip(self.critic.parameters(), critic.parameters(), strict=True):
            slow.lerp_(fast, step)
        self.updates += 1


class ReturnScale(nn.Module):
    """What DreamerV3 divides returns by (Equation 11): the range from their 5th to their 95th percentile, in moving
    averages that start at 0, but at least 1."""

    RATE, LOW, HIGH, LEAST = 0.01, 0.05, 0.95, 1.0

    def __init__(self, device=None):
        super().__init__()
        self.register_buffer("range", torch.zeros(2, device=device))
        # A buffer, since what is recorded on a GPU may copy nothing from the host.
        self.register_buffer("quantiles", torch.tensor([self.LOW, self.HIGH], device=device), persistent=False)

    def forward(self, returns):
        """Counts the returns (N, K) in, those of all ranks; the scale, a scalar."""
        self.range.lerp_(torch.quantile(ranks.gathered(returns).float(), self.quantiles), self.RATE)
        return (self.range[1] - self.range[0]).clamp(min=self.LEAST)


def slow_copy(critic, make_critic, interval, fraction):
    """A `SlowCritic` for a critic: a copy, or (DreamerV2, whose copies are whole) at first another network."""
    return SlowCritic(make_critic() if fraction == 1 else deepcopy(critic), interval, fraction)
