"""Draw learning curves of runs, mean and standard deviation over the seeds, beside published ones.

  python -m dreamer plot runs --out curves.png
  python -m dreamer plot runs/*walker-walk* --reference docs/reference.csv --table
  python -m dreamer plot runs/*walker-walk* runs/*my-idea* --by-name
  python -m dreamer plot runs --metric loss/model

Runs of one task and algorithm that differ in more than the seed are separate curves; the legend names the difference.
Changed code does not show in a configuration: give such runs another operation.log_dir, and use --by-name.
The reference is a CSV file with the columns method,task,observations,action_repeat,env_steps,mean,std,seeds. A task is
walker_walk, for example; observations are pixels or state; observations and action_repeat may be empty. Curves from
other observations or another action repeat than the runs are left out, unless --method names them; then the legend says
what differs. The method "random actions" becomes a level line.
"""

import argparse
import math
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamer.config.load import flatten, load_config
from dreamer.config.yaml_files import read_mapping
from dreamer.errors import ConfigError
from dreamer.tools.command_line import Parser
from dreamer.tools.published import (
    MADE_FROM,
    POINT,
    RANDOM,
    comparable,
    describe,
    is_alike,
    made_from,
    read_reference,
    unlike,
)
from dreamer.training.metrics_file import read_metrics
from dreamer.training.run_folder import CONFIGURATION

SAME_CURVE = {  # keys in which the runs of one curve may differ
    "environment.seed",
    "environment.success_key",
    "operation.background_evaluation",
    "operation.evaluation_device",
    "operation.checkpoint_interval",
    "operation.keep_every",
    "operation.device",
    "operation.fast_paths",
    "operation.log_dir",
    "operation.loggers",
    "operation.seed",
    "operation.video_interval",
    "parameters.dreamer.max_env_steps",
    "parameters.dreamer.train_iterations",
}
PANELS = 4  # in a row


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, and return the exit status: 0, or 2 with one line if nothing can be drawn."""
    options = parse_arguments(arguments)
    try:
        curves = group_runs(read_runs(find_runs(options.runs), options.metric, options.until), options.by_name)
        published = comparable(read_reference(options.reference, options.method), curves, options.method)
        if options.table:
            print(table(curves, published, options.metric))
        if options.out or not options.table:
            out = options.out or "curves.png"
            draw(curves, published, options.metric).savefig(out, dpi=150)
            print(f"written: {out}", file=sys.stderr)
    except (OSError, ValueError) as error:  # ValueError: ConfigError, or a file that pandas or matplotlib refuses
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line. arguments: None for those of the process."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("python -m dreamer plot", description=__doc__, formatter_class=raw)
    parser.add_argument("runs", nargs="+", help="folders of runs, or folders that hold them, such as runs")
    parser.add_argument("--metric", default="eval/return_ema20", help="a tag of TensorBoard (%(default)s)")
    parser.add_argument("--out", metavar="FILE", help="the picture, .png, .svg or .pdf (curves.png, unless --table)")
    parser.add_argument("--table", action="store_true", help="print the last values as a Markdown table")
    parser.add_argument("--until", type=float, default=math.inf, metavar="STEPS", help="the last env step drawn")
    parser.add_argument("--by-name", action="store_true", help="runs with another operation.log_dir are another curve")
    parser.add_argument("--reference", metavar="CSV", help="published curves to draw beside them")
    parser.add_argument("--method", action="append", help="draw only this method of the reference; repeat for more")
    options = parser.parse_args(arguments)
    if options.method and not options.reference:
        parser.error("--method goes with --reference")
    if options.reference and "return" not in options.metric:
        parser.error(f"--reference holds returns, which say nothing about {options.metric}")
    return options


def find_runs(names: Iterable[str]) -> list[Path]:
    """Return the folders of runs among `names` and directly inside them, each once. Name the others on stderr.

    Raises ConfigError if there is no run.
    """
    folders: dict[Path, Path] = {}
    without = []
    for name in map(Path, names):
        found = [*name.glob(CONFIGURATION), *sorted(name.glob(f"[!.]*/{CONFIGURATION}"))]
        folders |= {path.resolve(): path.parent for path in found}
        without += [] if found else [f"{name} is not the folder of a run and holds none"]
    if not folders:
        raise ConfigError(without[0])
    for line in without:
        print(f"left out: {line}", file=sys.stderr)
    return list(folders.values())


def read_runs(folders: Sequence[Path], metric: str, until: float = math.inf) -> pd.DataFrame:
    """Return the values of a metric by env steps, with a column for each folder that has it. Name the others on stderr.

    Raises ConfigError if no run has it.
    """
    columns: dict[Path, pd.Series] = {}
    tags: set[str] = set()
    for folder in folders:
        known, points = read_curve(folder, metric)
        tags |= known
        if metric in known:
            columns[folder] = pd.Series(points)
    values = pd.DataFrame(columns, columns=folders).sort_index()
    if values.isna().all(axis=None):
        raise ConfigError(f"no run has {metric}; there is: {', '.join(sorted(tags)) or 'nothing yet'}")
    found = values.loc[:until].dropna(axis=1, how="all")
    within = f" up to {until:,.0f} env steps" if until < math.inf else ""
    if found.empty:
        raise ConfigError(f"no run has {metric}{within}; the first has it after {values.index[0]:,}")
    for folder in values.columns.difference(found.columns):
        print(f"left out: {folder} has no {metric}{within}", file=sys.stderr)
    return found


def read_curve(folder: Path, metric: str) -> tuple[set[str], dict[int, float]]:
    """Return the tags of a run and {env steps: value} of one of them: of metrics.jsonl, which is read quickly, if it is
    there from the beginning, else of TensorBoard's files."""
    reports = read_metrics(folder)
    if reports and reports[0].get("iteration") == 0:
        tags = set().union(*reports) - {"iteration", "env_steps"}
        return tags, {report["env_steps"]: report[metric] for report in reports if metric in report}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # late: it takes a second

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1, "tensors": 1}).Reload()
    tags = set(events.Tags()["scalars"])
    points = events.Scalars(metric) if metric in tags else []
    return tags, {event.step: event.value for event in points}


def read_curve_settings(folder: Path) -> dict[str, str]:
    """Return the configuration of a run and its `task`, {key: text}. Read as plain YAML what load_config refuses."""
    try:
        settings = flatten(load_config(folder / CONFIGURATION))
    except ConfigError as refusal:
        try:
            settings = flatten(load_config("dreamer")) | flatten(read_mapping(folder / CONFIGURATION))
        except ConfigError:  # no mapping, or no YAML at all
            raise refusal from None
    domain, task = settings["environment.domain_name"], settings["environment.task_name"]
    settings["task"] = f"{domain}_{task}" if settings["environment.benchmark"] == "dmc" else task
    if settings["algorithm"] == "dreamer":
        settings["algorithm"] = f"dreamer-v{settings['version']}"
    elif settings["version"] != 1:
        settings["algorithm"] += f" on dreamer-v{settings['version']}"
    has_first_weights = settings["operation.initialize_from"] is not None  # which run they come from does not matter
    settings["operation.initialize_from"] = has_first_weights
    return {key: str(value) for key, value in settings.items()}


def group_runs(values: pd.DataFrame, by_name: bool = False) -> pd.DataFrame:
    """Return curves, each of runs that differ in the seed alone (by_name: and that have the same log_dir)."""
    settings = pd.DataFrame([read_curve_settings(folder) for folder in values], index=values.columns).fillna("absent")
    curves = []
    for (task, algorithm), runs in settings.groupby(["task", "algorithm"]):
        nothing = difference = pd.Series("", runs.index)
        for key in sorted(set(runs) - SAME_CURVE):
            if runs[key].nunique() > 1:
                difference = difference + f" {key.split('.')[-1]}=" + runs[key]
        groups = runs.groupby([runs["operation.log_dir"], difference] if by_name else difference)
        names = groups["operation.log_dir"].transform(lambda names: " " + "/".join(sorted(set(names))))
        labels = (nothing, names, difference, names + difference)  # the first that tells the groups apart
        label = next(texts for texts in labels if texts.nunique() == groups.ngroups)
        for method, group in runs.groupby(algorithm + label, sort=False):
            seeds = group["operation.seed"].nunique()
            if seeds < len(group):
                print(f"warning: {task}, {method}: {len(group)} runs of {seeds} seeds", file=sys.stderr)
            curve = average(values[group.index], method).assign(task=task, method=method, seeds=seeds)
            curves.append(curve.assign(**made_from(group.iloc[0])))
    return pd.concat(curves)


def average(values: pd.DataFrame, method: str) -> pd.DataFrame:
    """Return the mean curve of runs over the env steps at which all have values, interpolated linearly.

    Its std is that of the population, as in published curves; `each` has the values of the runs.
    """
    values = values.dropna(how="all").interpolate("index", limit_area="inside").dropna()
    if values.isna().all(axis=None):
        raise ConfigError(f"{method}: no env steps that all of its {values.shape[1]} runs have reached")
    points = {"env_steps": values.index, "mean": values.mean(axis=1), "std": values.std(axis=1, ddof=0)}
    return pd.DataFrame(points | {"each": values.values.tolist()}, index=values.index)


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
    lines = 1 + max("\n".join(str(line.get_label()) for line in panel.lines).count("\n") for panel in figure.axes)
    figure.set_size_inches(4.8 * columns, (3.4 + 0.17 * lines) * rows)
    return figure


def draw_task(panel: Axes, curves: pd.DataFrame, published: pd.DataFrame) -> None:
    """Draw the curves of a task; published ones are dashed and end at their first point beyond the runs."""
    end = curves["env_steps"].max()
    random, published = (published[is_it] for is_it in (published["method"] == RANDOM, published["method"] != RANDOM))
    end = min((step for step in published["env_steps"] if step >= end), default=end)
    for source, style, its in (("", "-", curves), (", published", "o--", published)):
        for (method, *_), points in its[its["env_steps"] <= end].groupby(
            ["method", *MADE_FROM], sort=False, dropna=False
        ):
            env_steps, mean, std, seeds = (points[column] for column in POINT)
            difference = unlike(points.iloc[0], curves) if source else ""
            label = f"{method}{source}{difference} ({seeds.max():.0f} seed{'s' if seeds.max() > 1 else ''})"
            marks = "o-" if len(points) == 1 else style  # a line of one point would be invisible
            panel.plot(env_steps, mean, marks, markersize=3, label=textwrap.fill(label, 54))
            panel.fill_between(env_steps, mean - std, mean + std, alpha=0.2, linewidth=0)
    for _, point in random.iterrows():
        label = f"{RANDOM}{unlike(point, curves)} ({point['seeds']:.0f} episodes)"
        panel.axhline(point["mean"], color="grey", linestyle=":", label=label)
    panel.set_xlim(-0.02 * end, 1.02 * end)
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small", frameon=False, loc="upper left", bbox_to_anchor=(0, -0.18), borderpad=0)


def table(curves: pd.DataFrame, published: pd.DataFrame, metric: str) -> str:
    """Return the last value of each curve as a Markdown table, beside the published point before it, or the first."""
    published = published[published["task"].isin(curves["task"])]
    methods = list(published["method"].unique())
    lines = [["task", "runs", "env steps", metric, "each seed", *methods], ["---"] * (5 + len(methods))]
    for _, last in curves.groupby(["task", "method"]).tail(1).iterrows():
        each = ", ".join(f"{value:.1f}" for value in last["each"])
        cells = [last["task"].replace("_", "-"), last["method"], f"{last['env_steps']:,.0f}", spread(last), each]
        for method in methods:
            points = published[(published["task"] == last["task"]) & (published["method"] == method)]
            reached = points[points["env_steps"] <= last["env_steps"]].tail(1)
            nearest = points.head(1) if reached.empty else reached
            cells += [spread(point) + when(point, last) for _, point in nearest.iterrows()] or [""]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def when(point: pd.Series, curve: pd.Series) -> str:
    """Return the text behind a published value in the row of a curve: its env steps, and what it is made from if that
    differs."""
    parts = [] if point["method"] == RANDOM else [f"{point['env_steps']:,.0f}"]
    parts += [] if is_alike(point, curve) else [describe(point)]
    return f" ({'; '.join(parts)})" if parts else ""


def spread(point: pd.Series) -> str:
    """Return mean and standard deviation as text."""
    return f"{point['mean']:.1f} ± {point['std']:.1f}"
