"""Draws runs beside each other and beside published curves: `python -m dreamer.plot runs`; `--help` tells the rest.

Runs of one task and algorithm whose configurations differ in the seed alone become one curve: their mean, and
their standard deviation around it.
"""

import argparse
import math
import sys

import numpy as np
from matplotlib.figure import Figure

from dreamer.config import ConfigError
from dreamer.curves import find_runs, group_runs, read_reference, read_runs

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
PANELS = 4  # in a row


def main(arguments=None):
    """Returns the exit status: 0, or 2 for what cannot be drawn; one line says why."""
    options = parse_arguments(arguments)
    try:
        curves = group_runs(read_runs(find_runs(options.runs), options.metric, options.until), options.by_name)
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
    parser.add_argument("--until", type=float, default=math.inf, metavar="STEPS", help="only so many env steps")
    parser.add_argument("--by-name", action="store_true", help="another operation.log_dir is another curve")
    parser.add_argument("--reference", metavar="CSV", help="published curves to draw beside them")
    parser.add_argument("--method", action="append", help="of the reference, only this one; can be repeated")
    options = parser.parse_args(arguments)
    if options.method and not options.reference:
        parser.error("--method goes with --reference")
    if options.reference and "return" not in options.metric:
        parser.error(f"--reference holds returns, which say nothing about {options.metric}")
    return options


def draw(curves, published, metric):
    """A figure with a panel for each task of `curves`; published ones are dashed, as far as the runs have come."""
    columns = min(len(curves), PANELS)
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(4.8 * columns, 3.6 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, task in zip(panels, sorted(curves), strict=False):
        end = reach(curves[task], published.get(task, []))
        for number, curve in enumerate([*curves[task], *published.get(task, [])]):
            ours = number < len(curves[task])
            seeds = f"({curve.seeds} seed{'s' if curve.seeds > 1 else ''})"
            label = f"{curve.label} {seeds}" if ours else f"{curve.label}, published {seeds}"
            env_steps, mean, std = (part[curve.env_steps <= end] for part in (curve.env_steps, curve.mean, curve.std))
            panel.plot(env_steps, mean, "-" if ours else "o--", markersize=3, clip_on=False, label=label)
            panel.fill_between(env_steps, mean - std, mean + std, alpha=0.2, linewidth=0)
        panel.set(title=task.replace("_", "-"), xlabel="env steps", ylabel=metric)
        panel.set_xlim(0, end)
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
