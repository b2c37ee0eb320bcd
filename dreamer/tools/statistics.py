"""Compute statistics over runs, as "Deep RL at the edge of the statistical precipice" (arXiv 2108.13264) recommends.

The values of a method are a list with an array (R,) for each task: a value for each run.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000  # of the bootstrap; its seed is fixed, so that a table can be reproduced


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the mean along an axis without the lowest and the highest quarter, rounded down to whole values."""
    return stats.trim_mean(values, 0.25, axis=axis)


def pooled_mean(*tasks: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the interquartile mean of the runs of all tasks together."""
    return interquartile_mean(np.concatenate(tasks, axis=axis), axis=axis)


def interval(
    tasks: Sequence[np.ndarray], statistic: Callable[..., np.ndarray] = pooled_mean, axis: int = -1
) -> tuple[np.ndarray, np.ndarray]:
    """Return (low, high) of the stratified bootstrap's interval, which resamples the runs within each task.

    statistic: takes the arrays of the tasks, and the axis of the runs. Both ends are NaN if a task has only one run.
    """
    if min(values.shape[axis] for values in tasks) < 2:
        nothing = np.full_like(statistic(*tasks, axis=axis), np.nan)
        return nothing, nothing
    found = stats.bootstrap(
        tasks,
        statistic,
        axis=axis,
        n_resamples=RESAMPLES,
        batch=100,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return found.confidence_interval


def probability_of_improvement(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Return (p, low, high): the probability that a run of one method is better than a run of another, its interval.

    A tie counts as half. The probability is the mean over tasks, which are the same for both methods.
    """

    def statistic(*tasks: np.ndarray, axis: int) -> np.ndarray:
        half = len(tasks) // 2
        pairs = zip(tasks[:half], tasks[half:], strict=True)
        return np.mean([_share_above(*(np.moveaxis(values, axis, -1) for values in pair)) for pair in pairs], axis=0)

    both = [*one, *other]
    low, high = interval(both, statistic)
    return float(statistic(*both, axis=-1)), float(low), float(high)


def performance_profile(tasks: Sequence[np.ndarray], scores: np.ndarray) -> np.ndarray:
    """Return the share of the runs of all tasks that are above each score, (K,) for scores (K,)."""
    return (np.concatenate(tasks)[:, None] > scores).mean(0)


def _share_above(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the share of pairs in which `one` is greater, (...,) from (..., R) and (..., Q). A tie counts as half."""
    difference = one[..., :, None] - other[..., None, :]
    return ((np.sign(difference) + 1) / 2).mean((-2, -1))
