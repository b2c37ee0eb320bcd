"""A behaviour (an actor, a critic and their optimisers), and the trajectories that it learns from."""

from typing import NamedTuple

import torch

from dreamer.modules.actor import Actor
from dreamer.modules.critic import Critic
from dreamer.optim import ClippedAdam


class ActorCritic(NamedTuple):
    """What learns from imagined trajectories. Which reward it learns from is not its business."""

    actor: Actor
    critic: Critic
    actor_optimizer: ClippedAdam
    critic_optimizer: ClippedAdam


class Imagination(NamedTuple):
    """Trajectories imagined from N states over H steps.

    index       0     1     …    H
    feature    s_0   s_1    …   s_H     s_0 is where imagination starts, a posterior of the replay
    action           a_1    …   a_H     a_τ leads from s_{τ-1} to s_τ; `action[:, τ - 1]`
    """

    feature: torch.Tensor  # (N, H + 1, F)
    action: torch.Tensor  # (N, H, A)
    entropy: torch.Tensor  # scalar: the mean of the actor's, in nats
