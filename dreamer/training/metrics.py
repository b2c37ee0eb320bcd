"""Averages of what a run reports."""

import math

from dreamer.errors import NotFiniteError


def check_finite(means, iteration):
    """Raise NotFiniteError if any of {name: number} is infinite or NaN."""
    broken = [name for name, mean in means.items() if not math.isfinite(mean)]
    if broken:
        raise NotFiniteError(f"not finite in iteration {iteration}: {', '.join(broken)}")


class Means:
    """Means of named scalar tensors, which stay on their device until `result` is called."""

    def __init__(self):
        self.sums, self.counts = {}, {}

    def add(self, metrics):
        """Take in {name: scalar tensor}; no gradient is kept."""
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
            self.counts[name] = self.counts.get(name, 0) + 1

    def result(self):
        """The means since the last call, as floats; not finite if any of the values was not."""
        sums, counts = self.sums, self.counts
        self.sums, self.counts = {}, {}
        return {name: float(total) / counts[name] for name, total in sums.items()}


class ExponentialAverage:
    """Exponential moving average with a span: the weight of a value falls by 1 - 2 / (span + 1) with
    each one after it, and the weights of those seen so far are scaled to sum to one."""

    def __init__(self, span):
        self.decay = 1 - 2 / (span + 1)
        self.total = self.weight = 0.0

    def add(self, value):
        """Take in one value and return the average."""
        self.total = self.decay * self.total + value
        self.weight = self.decay * self.weight + 1
        return self.value

    @property
    def value(self):
        """The average of what has been taken in; None before the first value."""
        return self.total / self.weight if self.weight else None

    def state_dict(self):
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state):
        self.total, self.weight = state["total"], state["weight"]
