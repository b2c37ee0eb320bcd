"""Imagine with an agent: predict from a latent state on, without observing.

Shapes: B batch, T time, F feature size, M memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from dreamer.algorithms.dream import Dream, act_in_imagination, disagreements, entropy, predict
from dreamer.algorithms.policy import Policy
from dreamer.config.load import Config
from dreamer.envs.translation import Translation
from dreamer.errors import InputError
from dreamer.modules.actor import Actor
from dreamer.modules.ensemble import OneStepModel
from dreamer.modules.heads import Head
from dreamer.modules.rssm import State
from dreamer.modules.world_model import WorldModel
from dreamer.training.device import one_thread, preserved_precision
from dreamer.training.seeding import RandomStream
from dreamer.training.torch_settings import default_types


class Imagining:
    """Gives `Agent` the methods that imagine. `Agent` sets these attributes, and changes `policy.state` and `is_first`
    with each observation."""

    config: Config
    device: torch.device
    translation: Translation
    model: WorldModel
    actor: Actor
    critic: Head | None
    one_step_model: OneStepModel | None
    policy: Policy
    samples: bool  # whether evaluations sample actions
    is_first: np.ndarray  # () or (B,): whether the next observation begins an episode
    dream_random_stream: RandomStream
    precision: str  # of float32 products

    @torch.inference_mode()
    def imagine(self, actions: Any = None, steps: int = 15, sample: bool | None = None, *, state: Any = None) -> Dream:
        """Return what the model predicts from a latent state on. The agent's own state does not change.

        actions: of the environment, (T, ·) or, for several dreams, (B, T, ·); None: the actor acts for `steps` steps.
        sample: as for `act`. state: where the dream begins, in the form of `Agent.state`; None: in the present state.
        The latent states are samples, so that two dreams differ. Raises InputError.
        """
        start, is_batch = self._start_states(state)
        with self._inference_settings(self.dream_random_stream):
            if actions is None:
                self.policy.exploration_noise = self._exploration_noise(sample)
                states, agent_actions = act_in_imagination(self.model, self.actor, self.policy.act, start, steps)
            else:
                array = self.translation.agent_action(actions, axes=(2,) if is_batch else (1, 2))
                agent_actions = torch.tensor(array if array.ndim == 3 else array[None], device=self.device)
                start = self._repeat(start, len(agent_actions), is_batch)
                is_batch = array.ndim == 3
                states = self.model.rssm.imagine(start, agent_actions)
            env_actions = self.translation.env_action(agent_actions.cpu().numpy())
            dream = replace(self._predict(states), actions=env_actions)
            if self.one_step_model is not None:
                measure = self.config.parameters.plan2explore.disagreement
                disagreement = disagreements(self.one_step_model, start, states, agent_actions, measure)
                dream = replace(dream, disagreement=disagreement)
        return dream if is_batch else _first(dream)

    @torch.inference_mode()
    def reconstruct(self) -> Dream:
        """Return what the model decodes from the present latent state, without an axis of time. Raises InputError if
        nothing was observed since the beginning of an episode."""
        with self._inference_settings(self.dream_random_stream):
            dream = self._predict(self._current_state())
        return dream if self.is_first.shape else _first(dream)

    @torch.inference_mode()
    def entropy(self, state: Any = None) -> np.ndarray:
        """Return the entropy of the actor's distribution in nats, () or (B,). state: as for `imagine`."""
        states, is_batch = self._start_states(state)
        with self._inference_settings(RandomStream(self.device, 0)):
            entropies = entropy(self.actor, states)
        return entropies if is_batch else entropies[0]

    def _exploration_noise(self, sample: bool | None) -> float | None:
        """Return the exploration noise of `Policy`: 0.0 samples actions, None takes modes."""
        samples = self.samples if sample is None else sample
        return 0.0 if samples else None

    def _current_state(self) -> State:
        """Return the latent states (B, ·) after the last observation. Raises InputError if there was none."""
        if self.is_first.any() or self.policy.state is None:
            raise InputError("no latent state: an episode has just begun; call act or observe first")
        return self.policy.state

    def _start_states(self, stored: Any = None) -> tuple[State, bool]:
        """Return latent states (B, ·), and whether they are a batch. stored: as for `imagine`. Raises InputError."""
        if stored is None:
            return self._current_state(), bool(self.is_first.shape)
        array = np.asarray(stored, np.float32)
        size = self.model.rssm.stored_size
        if array.ndim not in (1, 2) or array.shape[-1] != size or not np.isfinite(array).all():
            expected = f"finite numbers, ({size},) or (B, {size})"
            raise InputError(f"the state has the shape {array.shape}; expected {expected}")
        return self.model.rssm.restored(torch.tensor(np.atleast_2d(array), device=self.device)), array.ndim == 2

    def _repeat(self, state: State, count: int, is_batch: bool) -> State:
        """Return a latent state for each of `count` dreams. Raises InputError if a batch has another size."""
        rows = len(state.deterministic)
        if is_batch and count != rows:
            raise InputError(f"actions for {count} dreams; expected {rows}, one for each of the batch")
        return state if is_batch else state.map(lambda part: part.expand(count, *part.shape[1:]))

    def _predict(self, state: State) -> Dream:
        settings = self.config.parameters.dreamer
        return predict(self.model, self.critic, state, settings.discount if settings.discount_in_continue else 1.0)

    @contextmanager
    def _inference_settings(self, random_stream: RandomStream) -> Iterator[None]:
        """Use the settings of an evaluation and this stream in the block. Restore torch's settings after it."""
        with default_types(), preserved_precision(), one_thread(), random_stream.used():
            torch.set_float32_matmul_precision(self.precision)
            yield


def _first(dream: Dream) -> Dream:
    """Return the first of a batch of dreams."""
    return Dream(**tree_map(lambda part: None if part is None else part[0], vars(dream)))
