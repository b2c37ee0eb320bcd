"""Execute a parsed command line."""

import os
import webbrowser
from argparse import Namespace
from pathlib import Path

from dreamer.main import run_training
from dreamer.tools.play import evaluate, find_agent, report
from dreamer.tools.runs import list_runs
from dreamer.training.run import TrainingRequest


def execute(options: Namespace) -> None:
    """List runs, play a run or train. options: from a function of `command_line`."""
    if options.list is not None:
        print(list_runs(Path(options.list)))
    elif options.evaluate is not None:
        agent = find_agent(options.evaluate)
        result = evaluate(agent, options.episodes, options.device, options.video, options.checkpoint)
        print(report(result, options.json))
        if options.shows:
            show_film(options.video)
    else:
        run_training(TrainingRequest(options.config, options.overrides, options.folder, options.resume))


def show_film(path: str) -> None:
    """Open a film in the desktop's program for it, or print that there is no display."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        print(f"there is no display here; the film is in {path}")
    else:
        webbrowser.open(Path(path).absolute().as_uri())
