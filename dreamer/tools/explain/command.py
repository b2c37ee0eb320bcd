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
from dreamer.tools.explain.report import as_json, as_text, likeliest
from dreamer.tools.explain.steps import measure_steps
from dreamer.tools.explain.subject import open_subject
from dreamer.tools.explain.verdict import Figures, Verdict
from dreamer.tools.explain.verdicts import judge
from dreamer.training.ending import exit_status
from dreamer.training.run_folder import find_run
from dreamer.training.seeding import seeded_randomness

PICTURES = ".png", ".svg", ".pdf"


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain a run and return the exit status: 0, 1 if something keeps it from learning, or 2 with one line."""
    options = parse(arguments)
    verdicts: list[Verdict] = []
    status = exit_status(lambda: verdicts.extend(explain(options)))
    return status or int(likeliest(verdicts) is not None)


def explain(options: argparse.Namespace) -> list[Verdict]:
    """Print the verdicts on a run, draw them with --picture, and return them. Raises the errors of `examine`."""
    folder = find_run(options.run)
    config, curves, figures = examine(folder)
    verdicts = judge(figures, config)
    if options.picture:
        from dreamer.tools.explain.picture import draw  # late: matplotlib takes a second

        draw(curves, figures, verdicts, folder.name).savefig(options.picture, dpi=110)
        print(f"written: {options.picture}", file=sys.stderr)
    about = {name: figures[name] for name in ("iteration", "updates")}
    heading = f"{folder.name}: iteration {about['iteration']}, {about['updates']:,} updates, "
    heading += f"{figures['collected']:,} steps stored"
    about["run"] = str(folder)
    print(as_json(about, verdicts, figures) if options.json else as_text(heading, verdicts))
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
    subject = open_subject(folder)
    curves = read_curves(folder)
    figures: dict[str, Any] = {"iteration": subject.iteration, "updates": subject.updates}
    figures |= measure_curves(curves, subject.settings)
    with seeded_randomness(0), torch.no_grad():
        figures |= measure_steps(subject) | measure_model(subject) | measure_behavior(subject)
    return subject.config, curves, figures
