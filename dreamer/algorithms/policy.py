"""How a world model and an actor play an episode."""

import numpy as np
import torch
from torch.utils._pytree import tree_map

from dreamer.replay.step import NOTHING


class Policy:
    """Filters what it sees into a latent state and acts on it; called with one `Step` at a time,
    or with one that holds those of E environments, (E, ...).

    It goes through the same `observe_step` as training. With exploration_noise None (evaluation) it
    takes the mode of the actor's distribution. Otherwise it samples, and adds noise: to continuous
    actions, Gaussian of that std, clipped to [-1, 1]; a discrete action is replaced with that
    probability by a uniformly random one.

    keeps_context: whether `context` holds the stored form of the latent state that the last action was chosen from,
    (F + M,) or (E, F + M). Else its size is 0.
    """

    def __init__(self, model, actor, exploration_noise=None, keeps_context=False):
        self.model, self.actor = model, actor
        self.exploration_noise = exploration_noise
        self.device = next(model.parameters()).device
        self.state = None
        self.keeps_context, self.context = keeps_context, NOTHING

    @torch.inference_mode()
    def __call__(self, step):
        """The action (A,) that leaves `step`, or those of all environments, (E, A), as a numpy array."""
        if np.ndim(step.is_first) > 0:
            return self.actions(step)
        action = self.actions(tree_map(lambda part: np.asarray(part)[None], step))
        self.context = self.context[0] if self.keeps_context else NOTHING
        return action[0]

    def actions(self, step):
        if self.state is None:
            self.state = self.model.rssm.initial_state(len(step.is_first))
        # Copies, since torch aligns its memory and numpy does not: products of the same numbers elsewhere may round
        # differently, and a run that is resumed would not be the same.
        action = torch.tensor(step.action, device=self.device)
        is_first = torch.tensor(step.is_first, device=self.device).float()
        observation = tree_map(lambda part: torch.tensor(part, device=self.device), step.observation)
        embedding = self.model.encoder(self.model.normalize(observation))
        self.state = self.model.rssm.observe_step(self.state, action, embedding, is_first)
        if self.keeps_context:
            self.context = self.state.stored.cpu().numpy()
        return self.act(self.actor(self.state.feature)).cpu().numpy()

    def act(self, distribution):
        """Actions (E, A) from the actor's distribution."""
        if self.exploration_noise is None:
            return distribution.mode
        action = distribution.sample()
        if not self.actor.discrete:
            return (action + self.exploration_noise * torch.randn_like(action)).clamp(-1, 1)
        count, size = action.shape
        uniform = torch.eye(size, device=action.device)[torch.randint(size, (count,))]
        replaced = torch.rand(count, 1).to(action.device) < self.exploration_noise
        return torch.where(replaced, uniform, action)


def random_policy(env):
    """Actions drawn uniformly from the action space, of each environment where there are several."""
    if hasattr(env, "num_envs"):
        return lambda step: env.sample_actions()
    return lambda step: env.action_space.sample()
