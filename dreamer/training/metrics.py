"""Average the metrics that a run reports."""

import math
from collections.abc import Mapping, Sequence

import torch

from dreamer import distributed
from dreamer.errors import NotFiniteError
from dreamer.replay.step import Step

ADVICE = "lower the learning rates, or scale down rewards and observations"


def check_finite(means: Mapping[str, float], iteration: int) -> None:
    """Raise NotFiniteError if any of {name: number} is infinite or NaN."""
    not_finite = [name for name, mean in means.items() if not math.isfinite(mean)]
    if not_finite:
        raise NotFiniteError(f"not finite in iteration {iteration}: {', '.join(not_finite)}; {ADVICE}")


def achievement_curves(prefix: str, episodes: Sequence[Mapping[str, bool]]) -> dict[str, float]:
    """Return {tag: number}: the fraction of episodes that unlocked each achievement, and the score of these rates.

    episodes: {achievement: whether it was unlocked} of each; {} without any, as in most environments. The score is
    Crafter's (arXiv 2109.06780): exp(mean ln(1 + s)) - 1 over the rates s in percent, from 0 to 100.
    """
    if not episodes or not episodes[0]:
        return {}
    rates = {name: sum(episode[name] for episode in episodes) / len(episodes) for name in episodes[0]}
    score = math.exp(sum(math.log1p(100 * rate) for rate in rates.values()) / len(rates)) - 1
    return {f"{prefix}/achievements/{name}": rate for name, rate in rates.items()} | {f"{prefix}/score": score}


class EpisodeTotals:
    """Adds up the rewards and the env steps of a collected episode."""

    def __init__(self) -> None:
        self.episode_return = 0.0
        self.env_steps = 0
        self.success = math.nan

    def add(self, step: Step) -> None:
        """Take in the next step."""
        self.episode_return += float(step.reward)
        self.env_steps += int(step.env_steps)
        self.success = float(step.success)

    def curves(self, achievements: Mapping[str, bool]) -> dict[str, float]:
        """Return {tag: mean over the workers' episodes}, without success if the environment does not report it.

        achievements: {name: whether the episode has unlocked it}.
        """
        totals = {"train/return": self.episode_return, "train/length": self.env_steps, "train/success": self.success}
        totals |= {f"train/achievements/{name}": float(is_unlocked) for name, is_unlocked in achievements.items()}
        means = distributed.average(totals)
        if math.isnan(means["train/success"]):
            del means["train/success"]
        return means


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
        """Return the means since the last call. A mean is not finite if any of its values was not."""
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
        """Return the weighted sum of the values and the sum of the weights."""
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore a state of `state_dict`."""
        self.total = state["total"]
        self.weight = state["weight"]
