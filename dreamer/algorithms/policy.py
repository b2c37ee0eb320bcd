"""How a world model and an actor play an episode."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from dreamer.modules.actor import Actor
from dreamer.modules.rssm import State
from dreamer.modules.world_model import WorldModel
from dreamer.replay.step import NOTHING, Step

Latent = tuple[torch.Tensor, ...]  # h_t (E, D), z_t (E, S), and what the recurrence carries beside them, (E, M) each


class Policy:
    """Filters what it sees into a latent state and acts on it. It is called with one `Step` after another, each of one
    environment or of E environments, (E, ...).

    It goes through the same `observe_step` as training. After each call `latent` is the stored form of the latent
    state from which the action was chosen, (F + M,) or (E, F + M), or of size 0 if `stores_latent` is False.
    """

    def __init__(
        self,
        model: WorldModel,
        actor: Actor,
        exploration_noise: float | None = None,
        stores_latent: bool = False,
    ):
        """exploration_noise: None takes the mode of the actor's distribution (evaluation). A number samples it and adds
        noise: to continuous actions Gaussian noise of that std, clipped to [-1, 1]; a discrete action is replaced with
        that probability by a uniformly random one.
        """
        self.model, self.actor = model, actor
        self.exploration_noise = exploration_noise
        self.device = next(model.parameters()).device
        self.state: State | None = None
        self.stores_latent, self.latent = stores_latent, NOTHING

    @torch.inference_mode()
    def __call__(self, step: Step) -> np.ndarray:
        """Return the action (A,) that leaves `step`, or the actions of all environments, (E, A)."""
        if np.ndim(step.is_first) > 0:
            return self.actions(step)
        action = self.actions(tree_map(lambda part: np.asarray(part)[None], step))
        self.latent = self.latent[0] if self.stores_latent else NOTHING
        return action[0]

    def actions(self, step: Step) -> np.ndarray:
        """Return the actions (E, A) that leave a `Step` of E environments."""
        if self.state is None:
            self.state = self.model.rssm.initial_state(len(step.action))
        # Copies, since torch aligns its memory and numpy does not: products of the same numbers elsewhere may round
        # differently, and a run that is resumed would not be the same.
        action = torch.tensor(step.action, device=self.device)
        is_first = torch.tensor(step.is_first, device=self.device).float()
        observation = tree_map(lambda part: torch.tensor(part, device=self.device), step.observation)
        actions, latent = self.decide(latent_of(self.state), observation, action, is_first)
        self.state = state_of(latent)
        if self.stores_latent:
            self.latent = self.state.stored.cpu().numpy()
        return actions.cpu().numpy()

    def decide(
        self, latent: Latent, observation: Any, action: torch.Tensor, is_first: torch.Tensor
    ) -> tuple[torch.Tensor, Latent]:
        """Return the actions (E, A) and the latent state, from the latent state before and what has arrived.

        All are tensors on the device, so that a CUDA graph can hold this function.
        """
        output, latent = self.filter(latent, observation, action, is_first)
        return self.act(self.actor.policy(output)), latent

    def filter(
        self, latent: Latent, observation: Any, action: torch.Tensor, is_first: torch.Tensor
    ) -> tuple[torch.Tensor, Latent]:
        """Return the output of the actor's network (E, ·) and the latent state; arguments as for `decide`."""
        embedding = self.model.encoder(self.model.normalize(observation))
        state = self.model.rssm.observe_step(state_of(latent), action, embedding, is_first)
        return self.actor.network(state.feature), latent_of(state)

    def act(self, distribution: Any) -> torch.Tensor:
        """Choose actions (E, A) from the actor's distribution."""
        if self.exploration_noise is None:
            return distribution.mode
        action = distribution.sample()
        if not self.actor.discrete:
            return (action + self.exploration_noise * torch.randn_like(action)).clamp(-1, 1)
        count, size = action.shape
        uniform = torch.eye(size, device=action.device)[torch.randint(size, (count,), device=action.device)]
        replaced = torch.rand(count, 1, device=action.device) < self.exploration_noise
        return torch.where(replaced, uniform, action)


def random_policy(env: Any) -> Callable[[Step], np.ndarray]:
    """Return a policy that draws uniformly from the action space, for each environment of several."""
    if hasattr(env, "num_envs"):
        return lambda step: env.sample_actions()
    return lambda step: env.action_space.sample()


def begun_anew(policy: Callable[[Step], np.ndarray]) -> Callable[[Step], np.ndarray]:
    """Return a policy as it was before its first step; one without a latent state as it is."""
    if isinstance(policy, Policy):
        policy.state, policy.latent = None, NOTHING
    return policy


def latent_of(state: State) -> Latent:
    """Return the tensors of a state by which it goes on."""
    return (state.deterministic, state.stochastic, *state.memory)


def state_of(latent: Latent) -> State:
    """Return the state of the tensors of `latent_of`. Its distribution is not known."""
    deterministic, stochastic, *memory = latent
    return State(deterministic, stochastic, None, tuple(memory))
