"""Say why a run learns or does not learn, during training or after it, with the figures and the key to change.

  python -m dreamer explain latest
  python -m dreamer explain runs/<run> --picture why.png
  python -m dreamer explain runs/<run> --json

Reads the run's curves, its newest checkpoint and its stored steps; changes and locks nothing. Looks for causes in this
order: changed code and wrong data, the world model, actor and critic. The exit status is 1 if something keeps the run
from learning.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dreamer.config.load import Config
from dreamer.tools.argument_parser import Parser
from dreamer.tools.curves import Curves, read_curves
from dreamer.tools.explain.behavior import measure_behavior
from dreamer.tools.explain.curves import measure_curves
from dreamer.tools.explain.model import measure_model
from dreamer.tools.explain.opened_run import open_run
from dreamer.tools.explain.report import as_json, as_text, most_likely_cause
from dreamer.tools.explain.steps import measure_steps
from dreamer.tools.explain.verdict import Figures, Verdict
from dreamer.tools.explain.verdicts import check_run
from dreamer.training.ending import exit_status
from dreamer.training.run_folder import find_run
from dreamer.training.seeding import seeded_randomness

PICTURES = ".png", ".svg", ".pdf"


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain a run and return the exit status: 0, 1 if something keeps it from learning, or 2 with one line."""
    options = parse(arguments)
    verdicts: list[Verdict] = []
    status = exit_status(lambda: verdicts.extend(explain(options)))
    return status or int(most_likely_cause(verdicts) is not None)


def explain(options: argparse.Namespace) -> list[Verdict]:
    """Print the verdicts on a run, draw them with --picture, and return them. Raises the errors of `examine`."""
    folder = find_run(options.run)
    config, curves, figures = examine(folder)
    verdicts = check_run(figures, config)
    if options.picture:
        from dreamer.tools.explain.picture import draw_run  # late: matplotlib takes a second

        draw_run(curves, figures, verdicts, folder.name).savefig(options.picture, dpi=110)
        print(f"written: {options.picture}", file=sys.stderr)
    progress = {name: figures[name] for name in ("iteration", "updates")}
    heading = f"{folder.name}: iteration {progress['iteration']}, {progress['updates']:,} updates, "
    heading += f"{figures['collected']:,} steps stored"
    progress["run"] = str(folder)
    print(as_json(progress, verdicts, figures) if options.json else as_text(heading, verdicts))
    return verdicts


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line. arguments: None for `sys.argv`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("python -m dreamer explain", description=__doc__, formatter_class=raw)
    parser.add_argument("run", help="the run's folder, or latest")
    parser.add_argument("--json", action="store_true", help="verdicts and all figures as JSON, and nothing else")
    parser.add_argument("--picture", metavar="FILE", help="a picture of the curves and predictions, .png, .svg or .pdf")
    options = parser.parse_args(arguments)
    if options.picture and Path(options.picture).suffix not in PICTURES:
        parser.error(f"argument --picture: expected a name that ends in {', '.join(PICTURES)}, not {options.picture}")
    return options


def examine(folder: Path) -> tuple[Config, Curves, Figures]:
    """Return a run's configuration, its curves and all figures that can be computed.

    Raises ConfigError, CheckpointError or NotFiniteError.
    """
    run = open_run(folder)
    curves = read_curves(folder)
    figures: dict[str, Any] = {"iteration": run.iteration, "updates": run.updates}
    figures |= measure_curves(curves, run.settings)
    with seeded_randomness(0), torch.no_grad():
        figures |= measure_steps(run) | measure_model(run) | measure_behavior(run)
    return run.config, curves, figures
