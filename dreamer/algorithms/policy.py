"""Policies: a world model with an actor, or random actions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dreamer.modules.actor import Actor
from dreamer.modules.joint import Group
from dreamer.modules.rssm import State
from dreamer.modules.world_model import WorldModel
from dreamer.replay.step import NOTHING, Step

Latent = tuple[torch.Tensor, ...]  # h_t (E, D), z_t (E, S), and what the recurrence carries beside them, (E, M) each


class Policy:
    """Filters observations into a latent state and acts on it. It is called with one `Step` after another, each of one
    environment or of E environments, (E, ...).

    It uses the same `observe_step` as training. After each call `latent` is the stored form of the latent state from
    which the action was chosen, (F + M,) or (E, F + M), or of size 0 if `stores_latent` is False.
    """

    def __init__(
        self,
        model: WorldModel,
        actor: Actor,
        exploration_noise: float | None = None,
        stores_latent: bool = False,
    ):
        """exploration_noise: None takes the mode of the actor's distribution (evaluation). A number samples it and adds
        noise: to continuous actions Gaussian noise of that std, clipped to [-1, 1]; a discrete action, or each discrete
        part of one, is replaced with that probability by a uniformly random one.

        After the first calls a training run computes the action by a graph that holds this number as a constant
        (`training/traced_policy.py`). For a schedule, make it a tensor on the device and change it in place.
        """
        self.model, self.actor = model, actor
        self.exploration_noise = exploration_noise
        self.device = next(model.parameters()).device
        self.state: State | None = None
        self.stores_latent = stores_latent
        self.latent = NOTHING

    @torch.inference_mode()
    def __call__(self, step: Step) -> np.ndarray:
        """Return the action (A,) that leaves `step`, or the actions of all environments, (E, A)."""
        is_single = np.ndim(step.is_first) == 0
        observation = self.tensors(step.observation, is_single)
        action = self.tensors(step.action, is_single)
        is_first = self.tensors(step.is_first, is_single)
        actions = self.actions(observation, action, is_first.float())
        if is_single and self.stores_latent:
            self.latent = self.latent[0]
        return actions[0] if is_single else actions

    def tensors(self, arrays: Any, is_single: bool) -> Any:
        """Return an array or number, or a dict of arrays, on the device, with an axis E of 1 if they are of one
        environment.

        They are copies, since torch aligns its memory and numpy does not: products of the same numbers elsewhere may
        round differently, and a run that is resumed would not be the same.
        """
        if isinstance(arrays, dict):
            return {name: self.tensors(array, is_single) for name, array in arrays.items()}
        tensor = torch.tensor(arrays, device=self.device)
        return tensor[None] if is_single else tensor

    def actions(self, observation: Any, action: torch.Tensor, is_first: torch.Tensor) -> np.ndarray:
        """Return the actions (E, A) of E environments from what has arrived in them, as for `decide`."""
        if self.state is None:
            self.state = self.model.rssm.initial_state(len(action))
        actions, latent = self.decide(latent_tensors(self.state), observation, action, is_first)
        self.state = state_from_tensors(latent)
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
        state = self.model.rssm.observe_step(state_from_tensors(latent), action, embedding, is_first)
        return self.actor.network(state.feature), latent_tensors(state)

    def act(self, distribution: Any) -> torch.Tensor:
        """Choose actions (E, A) from the actor's distribution."""
        if self.exploration_noise is None:
            return distribution.mode
        action = distribution.sample()
        groups = self.actor.groups
        parts = action.split([group.size for group in groups], -1)
        noisy_parts = []
        for part, group in zip(parts, groups, strict=True):
            noisy_parts.append(add_exploration_noise(part, group, self.exploration_noise))
        return noisy_parts[0] if len(noisy_parts) == 1 else torch.cat(noisy_parts, -1)


def add_exploration_noise(action: torch.Tensor, group: Group, noise: float) -> torch.Tensor:
    """Return one group of an action's parts, (E, ·), with exploration noise."""
    if not group.classes:
        return (action + noise * torch.randn_like(action)).clamp(-1, 1)
    shape, device = (len(action), group.parts), action.device
    one_hot_vectors = action.unflatten(-1, (group.parts, group.classes))
    random_class = torch.randint(group.classes, shape, device=device)
    random_vectors = torch.eye(group.classes, device=device)[random_class]
    is_replaced = torch.rand(*shape, 1, device=device) < noise
    return torch.where(is_replaced, random_vectors, one_hot_vectors).flatten(-2)


def random_policy(env: Any) -> Callable[[Step], np.ndarray]:
    """Return a policy that draws uniformly from the action space, for each environment of several."""
    if hasattr(env, "num_envs"):
        return lambda step: env.sample_actions()
    return lambda step: env.action_space.sample()


def reset_policy(policy: Callable[[Step], np.ndarray]) -> Callable[[Step], np.ndarray]:
    """Put a policy back to the state before its first step, and return it."""
    if isinstance(policy, Policy):
        policy.state = None
        policy.latent = NOTHING
    return policy


def latent_tensors(state: State) -> Latent:
    """Return the tensors of a latent state that the next step needs."""
    return (state.deterministic, state.stochastic, *state.memory)


def state_from_tensors(latent: Latent) -> State:
    """Return the latent state from its `latent_tensors`. Its distribution is not known."""
    deterministic, stochastic, *memory = latent
    return State(deterministic, stochastic, None, tuple(memory))
