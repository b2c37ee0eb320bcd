"""Draw learning curves of runs, the interquartile mean over the seeds and its interval, beside published ones.

  python -m dreamer plot runs --out curves.png
  python -m dreamer plot runs/*walker-walk* --reference docs/reference.csv --table
  python -m dreamer plot runs/*walker-walk* runs/*my-idea* --by-name
  python -m dreamer plot runs --metric loss/model
  python -m dreamer plot runs --scores --out profiles.png

Runs of one task and algorithm that differ in more than the seed are separate curves; the legend names the difference.
A configuration does not show changes of code: give such runs another operation.log_dir, and use --by-name.
The reference is a CSV file with the columns method,task,observations,action_repeat,env_steps,mean,std,seeds. A task is
walker_walk, for example; observations are pixels or state; observations and action_repeat may be empty. Curves from
other observations or another action repeat than the runs are left out, unless --method names them; then the legend says
what differs. The method "random actions" is drawn as a level line.
Intervals are from the stratified bootstrap, 95 %. --scores compares methods over the tasks that all of them have:
the interquartile mean of the last values, the probability that one is better than another, and performance profiles.
With --reference and one --method, score 0 is the return of random actions and score 1 that of the method.
"""

import argparse
import math
import sys
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dreamer.tools.argument_parser import Parser
from dreamer.tools.grouping import find_runs, group_runs, read_runs
from dreamer.tools.published import (
    CONDITIONS,
    RANDOM,
    describe_conditions,
    differing_conditions,
    is_comparable,
    point_reached,
    read_reference,
    select_comparable,
)
from dreamer.tools.scores import draw_profiles, read_scores, score_table, with_interval

PANELS = 4  # in a row
FEW = 5  # below this number of runs, each run is drawn, too
CAPTION = """line: interquartile mean over runs; band: its 95 % bootstrap interval; thin: each of fewer than 5 runs
dashed: published, mean ± standard deviation"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, and return the exit status: 0, or 2 with one line if nothing can be drawn."""
    options = parse_arguments(arguments)
    try:
        curves = group_runs(read_runs(find_runs(options.runs), options.metric, options.until), options.by_name)
        published = select_comparable(read_reference(options.reference, options.method), curves, options.method)
        if options.table:
            print(table(curves, published, options.metric))
        scores = read_scores(curves, published, *(options.method or ())) if options.scores else None
        if scores:
            print(score_table(scores))
        if options.out or not (options.table or scores):
            path = options.out or "curves.png"
            figure = draw_profiles(scores, options.metric) if scores else draw(curves, published, options.metric)
            figure.savefig(path, dpi=150)
            print(f"written: {path}", file=sys.stderr)
    except (OSError, ValueError) as error:  # ValueError: ConfigError, or a file that pandas or matplotlib refuses
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line. arguments: None for `sys.argv`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("python -m dreamer plot", description=__doc__, formatter_class=raw)
    parser.add_argument("runs", nargs="+", help="folders of runs, or folders that hold them, such as runs")
    parser.add_argument("--metric", default="eval/return_ema20", help="a tag of TensorBoard (%(default)s)")
    parser.add_argument("--out", metavar="FILE", help="the picture, .png, .svg or .pdf (curves.png, unless --table)")
    parser.add_argument("--table", action="store_true", help="print the last values as a Markdown table")
    parser.add_argument("--scores", action="store_true", help="compare methods over tasks; --out draws their profiles")
    parser.add_argument("--until", type=float, default=math.inf, metavar="STEPS", help="the last env step drawn")
    parser.add_argument("--by-name", action="store_true", help="runs with another operation.log_dir are another curve")
    parser.add_argument("--reference", metavar="CSV", help="published curves to draw beside them")
    parser.add_argument("--method", action="append", help="draw only this method of the reference; repeat for more")
    options = parser.parse_args(arguments)
    if options.method and not options.reference:
        parser.error("--method goes with --reference")
    if options.scores and bool(options.reference) != (len(options.method or ()) == 1):
        parser.error("--scores takes --reference with one --method, which is the score 1, or neither")
    if options.reference and "return" not in options.metric:
        parser.error(f"--reference holds returns, which say nothing about {options.metric}")
    return options


def draw(curves: pd.DataFrame, published: pd.DataFrame, metric: str) -> Figure:
    """Return a figure with a panel for each task of `curves`."""
    tasks = curves["task"].unique()
    columns = min(len(tasks), PANELS)
    rows = math.ceil(len(tasks) / columns)
    figure = Figure(layout="constrained")
    for number, task in enumerate(tasks, 1):
        panel = figure.add_subplot(rows, columns, number)
        panel.set(title=task.replace("_", "-"), xlabel="env steps", ylabel=metric)
        draw_task(panel, curves[curves["task"] == task], published[published["task"] == task])
    label_lines = max(count_label_lines(panel) for panel in figure.axes)
    figure.supxlabel(CAPTION, fontsize="x-small", color="grey")
    figure.set_size_inches(4.8 * columns, (3.74 + 0.17 * label_lines) * rows)
    return figure


def count_label_lines(panel: Axes) -> int:
    """Return the number of lines that the legend of a panel takes; one label may have several."""
    return sum(str(line.get_label()).count("\n") + 1 for line in panel.lines)


def draw_task(panel: Axes, curves: pd.DataFrame, published: pd.DataFrame) -> None:
    """Draw the curves of a task; published ones are dashed and end at their first point beyond the runs."""
    last_step = curves["env_steps"].max()
    random_returns = published[published["method"] == RANDOM]
    published = published[published["method"] != RANDOM]
    last_step = min((step for step in published["env_steps"] if step >= last_step), default=last_step)
    grouping = {"by": ["method", *CONDITIONS], "sort": False, "dropna": False}
    for (method, *_), points in curves.groupby(**grouping):
        draw_runs(panel, points, method)
    for (method, *_), points in published[published["env_steps"] <= last_step].groupby(**grouping):
        label = f"{method}, published{differing_conditions(points.iloc[0], curves)}"
        mean, std = points["mean"], points["std"]
        draw_curve(panel, points, label, "o--", mean, mean - std, mean + std)
    for _, point in random_returns.iterrows():
        label = f"{RANDOM}{differing_conditions(point, curves)} ({point['seeds']:.0f} episodes)"
        panel.axhline(point["mean"], color="grey", linestyle=":", label=label)
    panel.set_xlim(-0.02 * last_step, 1.02 * last_step)
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small", frameon=False, loc="upper left", bbox_to_anchor=(0, -0.18), borderpad=0)


def draw_runs(panel: Axes, points: pd.DataFrame, method: str) -> None:
    """Draw the curve of some runs and, if they are few, each of them as a thin line."""
    line = draw_curve(panel, points, method, "-", points["iqm"], points["low"], points["high"])
    runs = np.transpose(points["each"].tolist())
    if 1 < len(runs) < FEW:
        for values in runs:
            panel.plot(points["env_steps"], values, color=line.get_color(), alpha=0.5, linewidth=0.6)


def draw_curve(
    panel: Axes, points: pd.DataFrame, name: str, style: str, middle: pd.Series, low: pd.Series, high: pd.Series
) -> Line2D:
    """Draw a curve with its band, with its name and number of seeds in the legend. Return the line."""
    seeds = points["seeds"].max()
    label = textwrap.fill(f"{name} ({seeds:.0f} seed{'s' if seeds > 1 else ''})", 54)
    marks = "o-" if len(points) == 1 else style  # a line of one point would be invisible
    (line,) = panel.plot(points["env_steps"], middle, marks, markersize=3, label=label)
    panel.fill_between(points["env_steps"], low, high, alpha=0.2, linewidth=0)
    return line


def table(curves: pd.DataFrame, published: pd.DataFrame, metric: str) -> str:
    """Return a Markdown table of each curve's last value, beside the last published point up to there, or the first."""
    published = published[published["task"].isin(curves["task"])]
    methods = list(published["method"].unique())
    rows = [["task", "runs", "env steps", f"{metric}, IQM (95 % interval)", "mean ± std", "each seed", *methods]]
    rows.append(["---"] * len(rows[0]))
    for _, last_point in curves.groupby(["task", "method"]).tail(1).iterrows():
        task, env_steps = last_point["task"], last_point["env_steps"]
        iqm = with_interval(last_point["iqm"], last_point["low"], last_point["high"])
        each_seed = ", ".join(f"{value:.1f}" for value in last_point["each"])
        mean_and_std = format_mean_and_std(last_point)
        cells = [task.replace("_", "-"), last_point["method"], f"{env_steps:,.0f}", iqm, mean_and_std, each_seed]
        for method in methods:
            points = published[(published["task"] == task) & (published["method"] == method)]
            if points.empty:
                cells.append("")
            else:
                point = point_reached(points, env_steps)
                cells.append(format_mean_and_std(point) + published_details(point, last_point))
        rows.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def published_details(point: pd.Series, curve: pd.Series) -> str:
    """Return text that follows a published value: its env steps, and its observations and action repeat if these
    differ from the curve's."""
    details = []
    if point["method"] != RANDOM:
        details.append(f"{point['env_steps']:,.0f}")
    if not is_comparable(point, curve):
        details.append(describe_conditions(point))
    return f" ({'; '.join(details)})" if details else ""


def format_mean_and_std(point: pd.Series) -> str:
    """Return mean and standard deviation as text; only the mean for one run."""
    deviation = "" if pd.isna(point["std"]) else f" ± {point['std']:.1f}"
    return f"{point['mean']:.1f}{deviation}"
