"""Draws runs beside each other and beside published curves: `python -m dreamer.plot runs`; `--help` tells the rest.

Runs of one task and algorithm whose configurations differ in the seed alone become one curve: their mean, and
their standard deviation around it.
"""

import argparse
import csv
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dreamer.utils.config import ConfigError, flatten, load_config
from dreamer.utils.run_folder import CONFIGURATION

DESCRIPTION = "Draw the learning curves of runs: mean and standard deviation over the seeds, against env steps."
EPILOG = """examples:
  python -m dreamer.plot runs --out curves.png
  python -m dreamer.plot runs/*walker-walk* --reference published.csv --method dreamer-v1 --table
  python -m dreamer.plot runs/*walker-walk* runs/*my-idea* --by-name
  python -m dreamer.plot runs --metric loss/model

Runs of one task and algorithm that differ in more than the seed are curves of their own; the legend says in what.
Changed code does not show in a configuration: give such runs an operation.log_dir of their own, and take --by-name.
The reference is a CSV file with the columns method,task,env_steps,mean,std,seeds and tasks such as walker_walk.
"""
SAME_CURVE = ("operation.", "environment.seed", "parameters.dreamer.train_iterations")  # keys that split no curve
COLUMNS = ["method", "task", "env_steps", "mean", "std", "seeds"]
PANELS = 4  # in a row


class Run(NamedTuple):
    """One metric of one run. settings: its configuration, flat. env_steps: rising, with the values there."""

    settings: dict
    env_steps: np.ndarray
    values: np.ndarray


class Curve(NamedTuple):
    """Mean and standard deviation over seeds at env steps. last: each seed's value at the last of them, if known."""

    label: str
    env_steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    seeds: int
    last: tuple = ()


def main(arguments=None):
    """Returns the exit status: 0, or 2 for what cannot be drawn; one line says why."""
    options = parse_arguments(arguments)
    try:
        curves = group_runs(read_runs(find_runs(options.runs), options.metric), options.by_name)
        published = read_reference(options.reference, options.method) if options.reference else {}
        if options.table:
            print(table(curves, published, options.metric))
        if options.out or not options.table:
            out = options.out or "curves.png"
            draw(curves, published, options.metric).savefig(out, dpi=150)
            print(f"written: {out}", file=sys.stderr)
    except (ConfigError, OSError, ValueError) as error:  # ValueError: from matplotlib, about the file's ending
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m dreamer.plot",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", help="folders of runs, or folders that hold them, such as runs")
    parser.add_argument("--metric", default="eval/return_ema20", help="a tag of TensorBoard (%(default)s)")
    parser.add_argument("--out", metavar="FILE", help="the picture, .png, .svg or .pdf (curves.png, unless --table)")
    parser.add_argument("--table", action="store_true", help="print the last values as a Markdown table")
    parser.add_argument("--by-name", action="store_true", help="another operation.log_dir is another curve")
    parser.add_argument("--reference", metavar="CSV", help="published curves to draw beside them")
    parser.add_argument("--method", action="append", help="of the reference, only this one; can be repeated")
    options = parser.parse_args(arguments)
    if options.method and not options.reference:
        parser.error("--method goes with --reference")
    if options.reference and "return" not in options.metric:
        parser.error(f"--reference holds returns, which say nothing about {options.metric}")
    return options


# Reading


def find_runs(names):
    """The folders of runs among `names` and directly inside them, each once."""
    folders = {}
    for name in map(Path, names):
        inside = sorted(path.parent for path in name.glob(f"*/{CONFIGURATION}"))
        found = [name] if (name / CONFIGURATION).is_file() else inside
        if not found:
            raise ConfigError(f"{name} is not the folder of a run and holds none")
        folders |= {folder.resolve(): folder for folder in found}
    return list(folders.values())


def read_runs(folders, metric):
    """A Run for each folder that has the metric; those without are named on stderr."""
    runs, without, tags = [], [], set()
    for folder in folders:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1, "tensors": 1}).Reload()
        known = events.Tags()["scalars"]
        tags.update(known)
        if metric in known:
            points = sorted((event.step, event.value) for event in events.Scalars(metric))
            runs.append(Run(flatten(load_config(folder / CONFIGURATION)), *np.array(points).T))
        else:
            without.append(folder)
    if not runs:
        raise ConfigError(f"no run has {metric}; there is: {', '.join(sorted(tags)) or 'nothing yet'}")
    for folder in without:
        print(f"left out: {folder} has no {metric}", file=sys.stderr)
    return runs


def read_reference(path, methods=None):
    """Published curves of these methods or of all, {task: [Curve]}. Raises ConfigError for another kind of file."""
    points = defaultdict(list)
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != COLUMNS:
            raise ConfigError(f"{path}: its first line should be {','.join(COLUMNS)}")
        for row in reader:
            try:
                points[row["task"], row["method"]].append([float(row[column]) for column in COLUMNS[2:]])
            except (TypeError, ValueError):
                raise ConfigError(f"{path}: line {reader.line_num} is not {','.join(COLUMNS)}") from None
    known = {method for _, method in points}
    if unknown := set(methods or ()) - known:
        raise ConfigError(f"{path}: no method {', '.join(unknown)}; there is: {', '.join(sorted(known))}")
    curves = defaultdict(list)
    for (task, method), rows in points.items():
        if not methods or method in methods:
            env_steps, mean, std, seeds = np.array(sorted(rows)).T
            curves[task].append(Curve(method, env_steps, mean, std, int(seeds.max())))
    return curves


# From runs to curves


def group_runs(runs, by_name=False):
    """Runs that differ in the seed alone (by_name: and have the same log_dir) as one curve each: {task: [Curve]}."""
    kinds = defaultdict(lambda: defaultdict(list))
    for run in runs:
        name = run.settings["operation.log_dir"] if by_name else None
        kinds[task_of(run), run.settings["algorithm"]][name, shaping(run)].append(run)
    curves = defaultdict(list)
    for (task, algorithm), groups in kinds.items():
        for group, difference in zip(groups.values(), differences(groups.values()), strict=True):
            curve = average(f"{algorithm} {difference}".strip(), group)
            if curve.seeds < len(group):
                print(f"warning: {task}, {curve.label}: {len(group)} runs of {curve.seeds} seeds", file=sys.stderr)
            curves[task].append(curve)
    return curves


def task_of(run):
    """Its name as in the reference, such as walker_walk; on gym the registered id."""
    domain, task = run.settings["environment.domain_name"], run.settings["environment.task_name"]
    return f"{domain}_{task}".replace("-", "_") if run.settings["environment.benchmark"] == "dmc" else task


def shaping(run):
    """The settings that shape its curve, a set of pairs."""
    return frozenset((key, value) for key, value in run.settings.items() if not key.startswith(SAME_CURVE))


def differences(groups):
    """What tells groups of runs apart: nothing if there is one, else their names, or the settings that differ."""
    names = ["/".join(sorted({run.settings["operation.log_dir"] for run in group})) for group in groups]
    settings = [shaping(group[0]) for group in groups]
    common = frozenset.intersection(*settings)
    own = [" ".join(f"{key.split('.')[-1]}={value}" for key, value in sorted(each - common)) for each in settings]
    both = [f"{name} {setting}" for name, setting in zip(names, own, strict=True)]
    return next(texts for texts in ([""] * len(names), names, own, both) if len(set(texts)) == len(texts))


def average(label, runs):
    """The Curve of some runs, where all of them have values: over the env steps of any, linear in between.

    std: of the population, as in published curves.
    """
    first, last = max(run.env_steps[0] for run in runs), min(run.env_steps[-1] for run in runs)
    env_steps = np.unique(np.concatenate([run.env_steps for run in runs]))
    env_steps = env_steps[(env_steps >= first) & (env_steps <= last)]
    if not len(env_steps):
        raise ConfigError(f"{label}: no env steps that all of its {len(runs)} runs have reached")
    values = np.stack([np.interp(env_steps, run.env_steps, run.values) for run in runs])
    seeds = len({run.settings["operation.seed"] for run in runs})
    return Curve(label, env_steps, values.mean(0), values.std(0), seeds, tuple(values[:, -1]))


# Showing


def draw(curves, published, metric):
    """A figure with a panel for each task of `curves`; published ones are dashed, as far as the runs have come."""
    columns = min(len(curves), PANELS)
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(4.8 * columns, 3.6 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, task in zip(panels, sorted(curves), strict=False):
        for number, curve in enumerate([*curves[task], *published.get(task, [])]):
            ours = number < len(curves[task])
            seeds = f"({curve.seeds} seed{'s' if curve.seeds > 1 else ''})"
            label = f"{curve.label} {seeds}" if ours else f"{curve.label}, published {seeds}"
            panel.plot(curve.env_steps, curve.mean, "-" if ours else "o--", markersize=3, label=label)
            panel.fill_between(curve.env_steps, curve.mean - curve.std, curve.mean + curve.std, alpha=0.2, linewidth=0)
        panel.set(title=task.replace("_", "-"), xlabel="env steps", ylabel=metric)
        panel.set_xlim(0, reach(curves[task], published.get(task, [])))
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    for panel in panels[len(curves) :]:
        panel.remove()
    return figure


def reach(curves, published):
    """The env steps to draw: as far as the runs, and to the next point of the published curves."""
    end = max(curve.env_steps[-1] for curve in curves)
    beyond = [step for curve in published for step in curve.env_steps if step >= end]
    return min(beyond, default=end)


def table(curves, published, metric):
    """The last value of each curve, as Markdown, and of published ones the last point up to there, or the first."""
    methods = list(dict.fromkeys(curve.label for task in sorted(curves) for curve in published.get(task, [])))
    heads = ["task", "runs", "env steps", metric, "each seed", *methods]
    lines = [heads, ["---"] * len(heads)]
    for task in sorted(curves):
        beside = {curve.label: curve for curve in published.get(task, [])}
        for curve in curves[task]:
            end = curve.env_steps[-1]
            last = f"{curve.mean[-1]:.1f} ± {curve.std[-1]:.1f}"
            cells = [task.replace("_", "-"), curve.label, f"{end:,.0f}", last]
            cells.append(", ".join(f"{value:.1f}" for value in curve.last))
            lines.append(cells + [published_cell(beside.get(method), end) for method in methods])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def published_cell(curve, env_steps):
    """Mean and standard deviation at the last point up to env_steps, or at the first, and where that is."""
    if curve is None:
        return ""
    point = max(0, np.searchsorted(curve.env_steps, env_steps, side="right") - 1)
    return f"{curve.mean[point]:.1f} ± {curve.std[point]:.1f} ({curve.env_steps[point]:,.0f})"


if __name__ == "__main__":
    sys.exit(main())
