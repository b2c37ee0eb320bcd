"""Which windows of the replay are drawn."""

from collections import deque

import numpy as np
import torch


class Windows:
    """Every window is as likely as any other; it may run from the end of one episode into the next."""

    starts_anew = False

    def finish_episode(self, steps): ...

    def longest(self, steps):
        """The steps of the longest window within a range of step numbers."""
        return len(steps)

    def draw(self, steps, length, count, random):
        """The numbers of the first steps of `count` windows within a range of step numbers."""
        return steps.start + random.integers(len(steps) - length + 1, size=count)

    def state_dict(self):
        return {}

    def load_state_dict(self, state): ...


class Episodes(Windows):
    """DreamerV2's: an episode, of the finished ones that are long enough, and then a window in it, both uniformly.

    prioritize_ends: the window's start is drawn from a range as much longer as the window is, and clipped, so that the
    episode's last window is more likely.
    """

    starts_anew = True

    def __init__(self, prioritize_ends=False):
        self.prioritize_ends = prioritize_ends
        self.borders = np.zeros(1, int)  # step numbers; between two of them lies a finished episode

    def finish_episode(self, steps):
        """The newest step was the last one of an episode."""
        self.borders = np.append(self.borders[self.borders >= steps.start], steps.stop)

    def longest(self, steps):
        _, lengths = self._episodes(steps)
        return max(lengths, default=0)

    def draw(self, steps, length, count, random):
        starts, lengths = self._episodes(steps)
        starts, last = starts[lengths >= length], lengths[lengths >= length] - length
        chosen = random.integers(len(starts), size=count)
        places = random.integers(last[chosen] + 1 + self.prioritize_ends * length)
        return starts[chosen] + np.minimum(places, last[chosen])

    def _episodes(self, steps):
        """First steps and lengths of the finished episodes that lie wholly within the range."""
        borders = self.borders[self.borders >= steps.start]
        return borders[:-1], np.diff(borders)

    def state_dict(self):
        return {"borders": torch.from_numpy(self.borders)}

    def load_state_dict(self, state):
        self.borders = state["borders"].numpy()


class Online:
    """DreamerV3's queue of the newest windows, of `length` steps: each waits to be sampled once, before others.

    The first one begins at step 2, each other one `length` + 1 steps after the one before, and is queued with its last
    step. The released code's windows are a step longer, for the state to begin with, and its second window (steps 1 to
    `length` + 1) is the first that it queues.
    """

    def __init__(self, length):
        self.length, self.steps, self.queue = length, -1, deque()

    def added(self, end):
        """One more step was, so that there are `end`."""
        self.steps += 1
        if self.steps == self.length + 1:
            self.queue.append(end - self.length)
            self.steps = 0

    def take(self, steps, count):
        """The first steps of up to `count` windows, the oldest first; not of those that left the range of `steps`."""
        taken = []
        while self.queue and len(taken) < count:
            start = self.queue.popleft()
            if start in steps:
                taken.append(start)
        return taken

    def state_dict(self):
        return {"steps": self.steps, "queue": list(self.queue)}

    def load_state_dict(self, state):
        self.steps, self.queue = state["steps"], deque(state["queue"])
