"""Draw windows of the replay. A sampler sees only the numbers of the stored steps, as a range."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


class WindowSampler:
    """Draws uniformly from all windows; one may run from the end of an episode into the next.

    Another way of sampling is a subclass; `build.build_replay` chooses it. steps, in every method: the numbers of the
    steps that are stored.
    """

    starts_episode = False  # whether the first step of a window counts as the first one of an episode

    def finish_episode(self, steps: range) -> None:
        """Note that the newest of the stored steps was the last one of an episode."""

    def longest(self, steps: range) -> int:
        """Return the length in steps of the longest window that can be drawn."""
        return len(steps)

    def draw(self, steps: range, length: int, count: int, random: np.random.Generator) -> np.ndarray:
        """Return the numbers of the first steps of `count` windows of `length` steps, (count,)."""
        return steps.start + random.integers(len(steps) - length + 1, size=count)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the sampler."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Return to an earlier state."""


class EpisodeSampler(WindowSampler):
    """Draws a finished episode that is long enough, then a window in it, both uniformly (DreamerV2).

    prioritize_ends: draw the window's start from a range that is longer by the window's length, and clip it, so that an
    episode's last window is more likely.
    """

    starts_episode = True

    def __init__(self, prioritize_ends: bool = False):
        self.prioritize_ends = prioritize_ends
        self.borders: np.ndarray = np.zeros(1, int)  # step numbers; between two of them lies a finished episode

    def finish_episode(self, steps: range) -> None:
        self.borders = np.append(self.borders[self.borders >= steps.start], steps.stop)

    def longest(self, steps: range) -> int:
        _, lengths = self._episodes(steps)
        return max(lengths, default=0)

    def draw(self, steps: range, length: int, count: int, random: np.random.Generator) -> np.ndarray:
        starts, lengths = self._episodes(steps)
        is_long_enough = lengths >= length
        starts = starts[is_long_enough]
        last_offsets = lengths[is_long_enough] - length  # of the last window of each episode
        episodes = random.integers(len(starts), size=count)
        num_offsets = last_offsets[episodes] + 1  # that are drawn from
        if self.prioritize_ends:
            num_offsets = num_offsets + length
        offsets = np.minimum(random.integers(num_offsets), last_offsets[episodes])
        return starts[episodes] + offsets

    def _episodes(self, steps: range) -> tuple[np.ndarray, np.ndarray]:
        """Return the first steps and the lengths of the finished episodes of which all steps are stored."""
        borders = self.borders[self.borders >= steps.start]
        return borders[:-1], np.diff(borders)

    def state_dict(self) -> dict[str, Any]:
        return {"borders": torch.from_numpy(self.borders)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.borders = state["borders"].numpy()


class OnlineQueue:
    """DreamerV3's queue of the newest windows, of `length` steps: each is sampled once, before windows drawn at random.

    The first one begins at step 2, each later one `length` + 1 steps after the previous one. Each is queued with its
    last step. The released code's windows have one more step, for the state that they start from, and the first that it
    queues is its second one, steps 1 to `length` + 1.
    """

    def __init__(self, length: int):
        self.length = length
        self.steps = -1  # since the newest queued window
        self.queue: deque[int] = deque()  # numbers of first steps, the oldest first

    def step_added(self, end: int) -> None:
        """Count one more stored step, and queue the window that it completes, if any. end: steps stored so far."""
        self.steps += 1
        if self.steps == self.length + 1:
            self.queue.append(end - self.length)
            self.steps = 0

    def take(self, steps: range, count: int) -> list[int]:
        """Remove up to `count` windows from the queue, the oldest first, and return their first steps.

        Windows whose first step is no longer stored are dropped.
        """
        taken: list[int] = []
        while self.queue and len(taken) < count:
            start = self.queue.popleft()
            if start in steps:
                taken.append(start)
        return taken

    def state_dict(self) -> dict[str, Any]:
        """Return the queue and the steps counted since its newest window."""
        return {"steps": self.steps, "queue": list(self.queue)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Return to an earlier state."""
        self.steps = state["steps"]
        self.queue = deque(state["queue"])
