"""Averages of what a run reports."""

import math
from collections.abc import Mapping

import torch

from dreamer.errors import NotFiniteError


def check_finite(means: Mapping[str, float], iteration: int) -> None:
    """Raise NotFiniteError if any of {name: number} is infinite or NaN."""
    broken = [name for name, mean in means.items() if not math.isfinite(mean)]
    if broken:
        raise NotFiniteError(f"not finite in iteration {iteration}: {', '.join(broken)}")


class Means:
    """Means of named scalar tensors, which stay on their device until `result` is called."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, torch.Tensor]) -> None:
        """Take in {name: scalar tensor}, without its gradient."""
        for name, value in metrics.items():
            self.sums[name] = value.detach() + self.sums.get(name, 0)
            self.counts[name] = self.counts.get(name, 0) + 1

    def result(self) -> dict[str, float]:
        """Return the means since the last call. One is not finite if any of its values was not."""
        sums, counts = self.sums, self.counts
        self.sums, self.counts = {}, {}
        return {name: float(total) / counts[name] for name, total in sums.items()}


class ExponentialAverage:
    """Exponential moving average. Each new value multiplies the weights of the earlier ones by 1 - 2 / (span + 1); the
    weights are scaled to sum to one."""

    def __init__(self, span: int) -> None:
        self.decay = 1 - 2 / (span + 1)
        self.total = self.weight = 0.0

    def add(self, value: float) -> float:
        """Take in one value and return the average."""
        self.total = self.decay * self.total + value
        self.weight = self.decay * self.weight + 1
        return self.total / self.weight

    @property
    def value(self) -> float | None:
        """The average of the values so far; None before the first one."""
        return self.total / self.weight if self.weight else None

    def state_dict(self) -> dict[str, float]:
        """Return the sums that the average follows from."""
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Put back a state of `state_dict`."""
        self.total, self.weight = state["total"], state["weight"]
