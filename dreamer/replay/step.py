"""Steps of episodes and batches of windows. Here the time index is fixed for everything that follows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_map

NOTHING = np.zeros(0, np.float32)


class Step(NamedTuple):
    """The parts that arrive together at index t of an episode.

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
    """B windows of T steps each, indexed as `Step`; time is dim 1."""

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

    def begin(self, length: int) -> Batch:
        """Return the first `length` steps of each window."""
        return self._each_step(lambda part: part[:, :length])

    def _each_step(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """Return the batch with a function applied to each tensor (B, T, ·), so to all but the latent states."""
        parts = {name: tree_map(function, getattr(self, name)) for name in STEP_FIELDS}
        return self._replace(**parts)


STEP_FIELDS = Batch._fields[:-1]  # the parts of a step that never change once stored; its latent state does
