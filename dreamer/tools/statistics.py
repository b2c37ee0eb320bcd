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
        nan = np.full_like(statistic(*tasks, axis=axis), np.nan)
        return nan, nan
    result = stats.bootstrap(
        tasks,
        statistic,
        axis=axis,
        n_resamples=RESAMPLES,
        batch=100,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return result.confidence_interval


def probability_of_improvement(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Return (p, low, high): the probability that a run of one method is better than a run of another, its interval.

    A tie counts as half. The probability is the mean over tasks, which are the same for both methods.
    """

    def statistic(*tasks: np.ndarray, axis: int) -> np.ndarray:
        task_count = len(tasks) // 2  # the tasks of the first method come before those of the second
        tasks = tuple(np.moveaxis(values, axis, -1) for values in tasks)
        pairs = zip(tasks[:task_count], tasks[task_count:], strict=True)
        return np.mean([share_of_better_pairs(*pair) for pair in pairs], axis=0)

    all_tasks = [*first, *second]
    low, high = interval(all_tasks, statistic)
    return float(statistic(*all_tasks, axis=-1)), float(low), float(high)


def performance_profile(tasks: Sequence[np.ndarray], scores: np.ndarray) -> np.ndarray:
    """Return the share of the runs of all tasks that are above each score, (K,) for scores (K,)."""
    return (np.concatenate(tasks)[:, None] > scores).mean(0)


def share_of_better_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the share (...,) of pairs of runs, from (..., R) and (..., Q), in which `first` is greater.

    A tie counts as half.
    """
    difference = first[..., :, None] - second[..., None, :]
    return ((np.sign(difference) + 1) / 2).mean((-2, -1))
