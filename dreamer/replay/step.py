"""Define steps of episodes and batches of windows, and with them the time index of the whole program."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_map

NOTHING = np.zeros(0, np.float32)


class Step(NamedTuple):
    """Holds the parts that arrive together at index t of an episode.

    index          0     1     2     3
    observation   o_0   o_1   o_2   o_3
    action         0    a_1   a_2   a_3    a_t led to o_t: it was chosen having seen o_0 … o_{t-1}
    reward         0    r_1   r_2   r_3    r_t was received on arriving at o_t
    is_first       1     0     0     0
    is_terminal    0     0     0    0/1    1: the task ended here. 0 at the last index: the time limit ended the episode

    A `Step` may also hold the steps of E environments, each part (E, ...).
    """

    observation: np.ndarray | dict[str, np.ndarray]  # uint8 (C, height, width), or float32 (size,), or a dict of both
    action: np.ndarray  # (A,)
    reward: float | np.ndarray
    is_first: bool | np.ndarray
    is_terminal: bool | np.ndarray
    env_steps: int | np.ndarray  # simulator steps that the action took, repeats included
    latent: np.ndarray = NOTHING  # (F + M,), the stored form of s_{t-1}, from which a_t was chosen; else of size 0
    success: float | np.ndarray = math.nan  # 1.0 if the episode has reached its goal so far, else 0.0; NaN: not known


class Batch(NamedTuple):
    """Holds B windows of T steps each, with the time index of `Step`; time is dim 1."""

    observation: torch.Tensor | dict[str, torch.Tensor]  # (B, T, C, height, width) uint8, (B, T, size) float32, or both
    action: torch.Tensor  # (B, T, A)
    reward: torch.Tensor  # (B, T)
    is_first: torch.Tensor  # (B, T), 1.0 where an episode begins
    is_terminal: torch.Tensor  # (B, T), 1.0 where the task ended
    latent: torch.Tensor = torch.empty(0, 0)  # (B, F + M), the stored state before each window; (B, 0) without any

    def rows(self, index: torch.Tensor | slice) -> Batch:
        """Return the windows that `index` selects."""
        latent = self.latent[index] if len(self.latent) else self.latent
        return self._each_step(lambda part: part[index])._replace(latent=latent)

    def first_steps(self, length: int) -> Batch:
        """Return the first `length` steps of each window."""
        return self._each_step(lambda part: part[:, :length])

    def last_steps(self, length: int) -> Batch:
        """Return the last `length` steps of each window, at most all, without the latent states."""
        return self._each_step(lambda part: part[:, -length:])._replace(latent=self.latent[:0])

    def _each_step(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """Return the batch with a function applied to each tensor (B, T, ·), so to all but the latent states."""
        parts = {name: tree_map(function, getattr(self, name)) for name in STEP_FIELDS}
        return self._replace(**parts)


STEP_FIELDS = Batch._fields[:-1]  # the parts of a step that never change once stored; its latent state does


def step_type(observation_shape: tuple[int, ...], observation_dtype: np.dtype, action_size: int) -> np.dtype:
    """Return the type of a stored step: a row with the parts of `STEP_FIELDS`."""
    return np.dtype(
        [
            ("observation", observation_dtype, observation_shape),
            ("action", np.float32, (action_size,)),
            ("reward", np.float32),
            ("is_first", np.float32),
            ("is_terminal", np.float32),
        ]
    )


def fields(steps: np.ndarray) -> dict[str, Any]:
    """Return views of the fields of structured rows, {name: array}; an observation with parts is a nested dict."""
    views: dict[str, Any] = {}
    for name in steps.dtype.names or ():
        part = steps[name]
        views[name] = fields(part) if part.dtype.names else part
    return views


def assign_fields(values: Mapping[str, Any], arrays: Mapping[str, Any], place: Any) -> None:
    """Assign values to a place in each of the arrays of the same names."""
    for name, array in arrays.items():
        if isinstance(array, dict):
            assign_fields(values[name], array, place)
        else:
            array[place] = values[name]
