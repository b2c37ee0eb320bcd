"""The replay: one ring of steps from which windows of consecutive steps are drawn."""

from typing import NamedTuple

import numpy as np
import torch

BLOCK = 4096  # steps by which the storage grows


class Batch(NamedTuple):
    """Windows of the replay, indexed as in `utils.episode.Step`; B windows of T steps, time is dim 1."""

    observation: torch.Tensor  # (B, T, 3, height, width) uint8, or (B, T, size) float32
    action: torch.Tensor  # (B, T, A)
    reward: torch.Tensor  # (B, T)
    is_first: torch.Tensor  # (B, T), 1.0 where an episode begins
    is_terminal: torch.Tensor  # (B, T), 1.0 where the task ended


class ReplayBuffer:
    """Stores at most `capacity` agent steps, the oldest overwritten first; pixels once, as uint8.

    Memory grows in blocks with what is stored. A window may run from the end of one episode into
    the next (`is_first` tells), but never over the write head, where the newest step is followed
    by the oldest.
    """

    def __init__(self, capacity, observation_shape, observation_dtype, action_size, seed):
        self.capacity = capacity
        self.position = 0  # where the next step goes
        self.size = 0  # steps stored
        self.random = np.random.default_rng(seed)
        self.storage = Batch(
            observation=np.empty((0, *observation_shape), observation_dtype),
            action=np.empty((0, action_size), np.float32),
            reward=np.empty(0, np.float32),
            is_first=np.empty(0, np.float32),
            is_terminal=np.empty(0, np.float32),
        )

    def __len__(self):
        return self.size

    def add(self, step):
        """Append one `Step`."""
        if self.position == len(self.storage.reward):
            self._grow()
        for name, array in self.storage._asdict().items():
            array[self.position] = getattr(step, name)
        self.position = (self.position + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def sample(self, batch_size, batch_length):
        """A `Batch` of windows whose starts are uniform over all valid ones.

        Raises ValueError while fewer than `batch_length` steps are stored.
        """
        if self.size < batch_length:
            raise ValueError(f"{self.size} steps are stored, a window of {batch_length} needs more")
        oldest = self.position if self.size == self.capacity else 0
        starts = self.random.integers(self.size - batch_length + 1, size=(batch_size, 1))
        indices = (oldest + starts + np.arange(batch_length)) % self.capacity
        return Batch(*(torch.from_numpy(array[indices]) for array in self.storage))

    def _grow(self):
        length = min(len(self.storage.reward) + BLOCK, self.capacity)
        for array in self.storage:  # in place: the allocator moves pages, and copies nothing
            array.resize((length, *array.shape[1:]), refcheck=False)
