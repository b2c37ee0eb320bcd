"""DreamerV2: what "Mastering Atari with Discrete World Models" (arXiv 2010.02193) changes.

Categorical latents are in `modules/latents.py`, its GRU in `modules/recurrent.py`, KL balancing in `Dreamer.kl_loss`,
the slow critic and the actor's gradient in `behavior_parts.py`: the configuration chooses them. Here is the rest: to
which state a return belongs.
"""

import torch
from torch.nn import functional

from dreamer.algorithms.dreamer import Behavior, Dreamer, Targets, lambda_return


class DreamerV2(Dreamer):
    """Its behaviour wants the reward on arriving at the start of imagination, too."""

    first_reward = 0


class BehaviorV2(Behavior):
    def targets(self, reward, value, discount, is_terminal):
        """Section 2.2: returns of s_0 … s_{H-1}, each with its own state's reward; s_H only bootstraps.

        The action a_{k+1} is chosen at s_k and answers for the return of s_{k+1}. The start's own discount is known:
        it is 0 where the task had ended. A reward of s_0 that is not given (N, H) is not learned, either.
        """
        horizon = value.shape[1] - 1
        first = horizon + 1 - reward.shape[1]
        reward = functional.pad(reward, (first, 0))
        known = self.config.discount * (1 - is_terminal[:, None])
        discount = torch.cat([known, discount[:, 1:-1]], 1)
        returns = lambda_return(reward[:, :-1], discount, value[:, 1:], self.config.lambda_)
        weight = torch.cat([torch.ones_like(known), discount[:, :-1]], 1).cumprod(1).detach()
        actor = returns[:, 1:], value[:, : horizon - 1], weight[:, :-1]
        return Targets(*actor, returns[:, first:], weight[:, first:], critic_first=first)
