"""Compare methods over tasks: scores, interquartile means, probabilities of improvement and performance profiles."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dreamer.errors import ConfigError
from dreamer.tools.published import RANDOM, point_reached
from dreamer.tools.statistics import interquartile_mean, interval, performance_profile, probability_of_improvement

Scores = dict[str, list[np.ndarray]]  # by method: for each task that all methods have, an array of the runs' scores


def read_scores(curves: pd.DataFrame, published: pd.DataFrame, best: str | None = None) -> Scores:
    """Return the scores of curves at their ends: the values themselves or, with `best`, normalised for each task.

    best: the published method whose value at these env steps has score 1; random actions have score 0. Raises
    ConfigError if the methods have no task in common, or a task has no published value.
    """
    ends = curves.groupby(["task", "method"]).tail(1)
    methods = list(ends["method"].unique())
    tasks = [task for task, its in ends.groupby("task") if its["method"].nunique() == len(methods)]
    if not tasks:
        raise ConfigError(f"--scores: no task has runs of each of {', '.join(methods)}")
    scores: Scores = {method: [] for method in methods}
    for task in tasks:
        for _, end in ends[ends["task"] == task].iterrows():
            low, high = (_level(published, name, end) for name in (RANDOM, best)) if best else (0.0, 1.0)
            scores[end["method"]].append((np.array(end["each"]) - low) / (high - low))
    return scores


def _level(published: pd.DataFrame, method: str, end: pd.Series) -> float:
    points = published[(published["task"] == end["task"]) & (published["method"] == method)]
    if points.empty:
        raise ConfigError(f"--scores: the reference has nothing of {method} on {end['task']}")
    return float(point_reached(points, end["env_steps"])["mean"])


def score_table(scores: Scores) -> str:
    """Return a Markdown table: for each method the interquartile mean over the runs of all tasks, and the probability
    that one of its runs is better than a run of each other method, with 95 % intervals."""
    columns = ["method", "tasks", "runs", "IQM of scores (95 % interval)", *(f"better than {name}" for name in scores)]
    lines = [columns, ["---"] * len(columns)]
    for method, tasks in scores.items():
        every = np.concatenate(tasks)
        low, high = map(float, interval(tasks))
        means = with_interval(float(interquartile_mean(every)), low, high, digits=3)
        others = ["" if name == method else _improvement(tasks, scores[name]) for name in scores]
        lines.append([method, str(len(tasks)), str(len(every)), means, *others])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _improvement(one: list[np.ndarray], other: list[np.ndarray]) -> str:
    return with_interval(*probability_of_improvement(one, other), digits=2)


def with_interval(value: float, low: float, high: float, digits: int = 1) -> str:
    """Return a value and its interval as text; only the value if there is no interval."""
    text = f"{value:.{digits}f}"
    return text if np.isnan(low) else f"{text} ({low:.{digits}f} to {high:.{digits}f})"


def draw_profiles(scores: Scores, metric: str) -> Figure:
    """Return a figure of performance profiles: the share of runs above each score."""
    every = np.concatenate([values for tasks in scores.values() for values in tasks])
    levels = np.linspace(min(0.0, every.min()), every.max(), 201)
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.add_subplot()
    for method, tasks in scores.items():
        runs = sum(map(len, tasks))
        panel.plot(levels, performance_profile(tasks, levels), label=f"{method} ({len(tasks)} tasks, {runs} runs)")
    panel.set(xlabel=f"score, from {metric}", ylabel="share of runs above it", ylim=(0, 1.02))
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small", frameon=False)
    return figure
