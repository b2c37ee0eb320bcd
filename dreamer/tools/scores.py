"""Compare methods over tasks: scores, interquartile means, probabilities of improvement and performance profiles."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dreamer.errors import ConfigError
from dreamer.tools.published import RANDOM, point_reached
from dreamer.tools.statistics import interquartile_mean, interval, performance_profile, probability_of_improvement

Scores = dict[str, list[np.ndarray]]  # by method: for each task that all methods have, an array of the runs' scores


def read_scores(curves: pd.DataFrame, published: pd.DataFrame, reference_method: str | None = None) -> Scores:
    """Return the scores of curves at their last points: the values or, with `reference_method`, normalised values.

    reference_method: the published method whose value at these env steps has score 1 on each task; random actions have
    score 0. Raises ConfigError if the methods have no task in common, or a task has no published value.
    """
    last_points = curves.groupby(["task", "method"]).tail(1)
    methods = list(last_points["method"].unique())
    tasks = [task for task, group in last_points.groupby("task") if group["method"].nunique() == len(methods)]
    if not tasks:
        raise ConfigError(f"--scores: no task has runs of each of {', '.join(methods)}")
    scores: Scores = {method: [] for method in methods}
    for task in tasks:
        for _, last_point in last_points[last_points["task"] == task].iterrows():
            low, high = 0.0, 1.0
            if reference_method:
                low = reference_return(published, RANDOM, last_point)
                high = reference_return(published, reference_method, last_point)
            scores[last_point["method"]].append((np.array(last_point["each"]) - low) / (high - low))
    return scores


def reference_return(published: pd.DataFrame, method: str, last_point: pd.Series) -> float:
    """Return what a published method reaches on the task and at the env steps of a curve's last point."""
    points = published[(published["task"] == last_point["task"]) & (published["method"] == method)]
    if points.empty:
        raise ConfigError(f"--scores: the reference has nothing of {method} on {last_point['task']}")
    return float(point_reached(points, last_point["env_steps"])["mean"])


def score_table(scores: Scores) -> str:
    """Return a Markdown table: for each method the interquartile mean over the runs of all tasks, and the probability
    that one of its runs is better than a run of each other method, with 95 % intervals."""
    columns = ["method", "tasks", "runs", "IQM of scores (95 % interval)", *(f"better than {name}" for name in scores)]
    rows = [columns, ["---"] * len(columns)]
    for method, scores_by_task in scores.items():
        all_scores = np.concatenate(scores_by_task)
        low, high = map(float, interval(scores_by_task))
        iqm = with_interval(float(interquartile_mean(all_scores)), low, high, digits=3)
        improvements = ["" if name == method else format_improvement(scores_by_task, scores[name]) for name in scores]
        rows.append([method, str(len(scores_by_task)), str(len(all_scores)), iqm, *improvements])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def format_improvement(first: list[np.ndarray], second: list[np.ndarray]) -> str:
    """Return the probability that a run of the first method is better than one of the second, with its interval."""
    return with_interval(*probability_of_improvement(first, second), digits=2)


def with_interval(value: float, low: float, high: float, digits: int = 1) -> str:
    """Return a value and its interval as text; only the value if there is no interval."""
    text = f"{value:.{digits}f}"
    return text if np.isnan(low) else f"{text} ({low:.{digits}f} to {high:.{digits}f})"


def draw_profiles(scores: Scores, metric: str) -> Figure:
    """Return a figure of performance profiles: the share of runs above each score."""
    all_scores = np.concatenate([values for scores_by_task in scores.values() for values in scores_by_task])
    levels = np.linspace(min(0.0, all_scores.min()), all_scores.max(), 201)
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.add_subplot()
    for method, scores_by_task in scores.items():
        runs = sum(map(len, scores_by_task))
        label = f"{method} ({len(scores_by_task)} tasks, {runs} runs)"
        panel.plot(levels, performance_profile(scores_by_task, levels), label=label)
    panel.set(xlabel=f"score, from {metric}", ylabel="share of runs above it", ylim=(0, 1.02))
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small", frameon=False)
    return figure
