"""Clocks that wait for the device, and how fast it multiplies large matrices."""

import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch

MATRIX = {"cpu": 2048, "cuda": 8192}  # rows and columns, enough to keep the device busy


def now(device):
    """Seconds on a clock that is read when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(device, function, *arguments):
    """(seconds, result) of a call."""
    started = now(device)
    result = function(*arguments)
    return now(device) - started, result


def matmul_gflops(device, dtype):
    """1e9 operations a second, a multiply-add being two: the best of three products of large matrices, after a first
    one. Of fewer where a product takes long."""
    size, seconds = MATRIX[device.type], []
    matrix = torch.randn(size, size, device=device).to(dtype)
    while len(seconds) < 4 and sum(seconds) < 2:
        seconds.append(timed(device, torch.mm, matrix, matrix)[0])
    return 2 * size**3 / min(seconds[1:] or seconds) / 1e9


class Stopwatch:
    """Seconds spent in calls, by the names of the watched calls around them and their own.

    What a watched call spends in another one counts for the inner one alone. It waits for the device
    at both ends of a call, so that work counts where it was ordered.
    """

    def __init__(self, device):
        self.device = device
        self.running, self.seconds = (), defaultdict(float)

    def wrap(self, name, function):
        """The function, watched. name: a text, or a function that makes one of the same arguments."""

        def watched(*arguments, **keywords):
            outside = self.running
            self.running = path = (*outside, name(*arguments) if callable(name) else name)
            started = now(self.device)
            try:
                return function(*arguments, **keywords)
            finally:
                spent, self.running = now(self.device) - started, outside
                self.seconds[path] += spent
                if outside:
                    self.seconds[outside] -= spent

        return watched

    @contextmanager
    def watching(self, places):
        """Within it, what stands at each of the places (object, attribute, name) is watched."""
        with ExitStack() as stack:
            for owner, attribute, name in places:
                stack.enter_context(patch.object(owner, attribute, self.wrap(name, getattr(owner, attribute))))
            yield
