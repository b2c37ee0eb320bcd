"""Choose the checkpoints that a run keeps besides its newest two: the best, and every `operation.keep_every`-th."""

import math
from collections.abc import Mapping
from typing import Any

from dreamer import distributed


class CheckpointRetention:
    """Chooses when a checkpoint is written, and which ones the first data-parallel worker keeps.

    The best is the one with the highest eval/return_ema20, of the iterations that are both evaluated and saved. While
    an evaluation is under way, its checkpoint is kept as well, since it may become the best. A run
    resumes from its newest two alone, whose steps the replay keeps; agents can be loaded from all.
    """

    def __init__(self, interval: int, every: int = 0) -> None:
        """interval: iterations between two checkpoints. every: iterations between two that stay for ever; 0: none."""
        self.interval, self.every = interval, every
        self.best: int | None = None  # an iteration
        self.average = -math.inf  # of the best
        self.candidate: int | None = None  # the iteration that is being evaluated, if it is saved
        self.permanent: list[int] = []  # iterations whose checkpoints are never deleted

    def is_due(self, iteration: int, last: bool) -> bool:
        """Return whether a checkpoint is written at the end of an iteration. last: whether it is the run's last one."""
        return last or iteration % self.interval == 0 or self.is_permanent(iteration)

    def is_permanent(self, iteration: int) -> bool:
        """Return whether the checkpoint of an iteration is never deleted."""
        return self.every > 0 and iteration % self.every == 0

    def begin_evaluation(self, iteration: int, last: bool) -> None:
        """Note that an evaluation begins. The previous one must have ended."""
        self.candidate = iteration if self.is_due(iteration, last) else None

    def end_evaluation(self, average: float) -> None:
        """Note eval/return_ema20 at the end of the evaluation."""
        if self.candidate is not None and average > self.average:
            self.best, self.average = self.candidate, average
        self.candidate = None

    def end_iteration(self, iteration: int) -> None:
        """Note that an iteration ends."""
        if distributed.rank() == 0 and self.is_permanent(iteration):
            self.permanent.append(iteration)

    def state_dict(self) -> dict[str, Any]:
        """Return what was chosen so far."""
        return {
            "best": self.best,
            "average": self.average,
            "candidate": self.candidate,
            "for_good": self.permanent,  # as older checkpoints call it
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state. States of older versions are empty."""
        self.best = state.get("best")
        self.average = state.get("average", -math.inf)
        self.candidate = state.get("candidate")
        self.permanent = list(state.get("for_good", ()))


def retained_beside(state: Mapping[str, Any]) -> set[int]:
    """Return the iterations whose checkpoints must be kept besides the checkpoint that holds `state`."""
    retention = state.get("kept", {})
    iterations = [retention.get("best"), retention.get("candidate"), *retention.get("for_good", ())]
    return {iteration for iteration in iterations if iteration is not None}
