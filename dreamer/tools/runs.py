"""Make the table of the runs in a folder: `python main.py --list`."""

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dreamer.training.checkpoint_file import checkpoints
from dreamer.training.run_folder import all_runs, is_locked, read_settings
from dreamer.training.schedule import is_over

COLUMNS = ["run", "algorithm", "seed", "state", "iteration", "env steps", "eval/return_ema20"]


def list_runs(root: Path) -> str:
    """Return a table of the runs in `root`, a line for each, in the order in which they started."""
    runs = all_runs(root)
    if not runs:
        return f"there is no run in {root.absolute()}"
    return "\n".join(align_columns([COLUMNS, *map(describe, runs)]))


def align_columns(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of cells as lines of text, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def describe(folder: Path) -> list[str]:
    """Return the cells of a run, one for each of COLUMNS, empty if unknown."""
    settings = read_settings(folder)
    iteration, env_steps, evaluation = read_progress(folder)
    planned = settings.get("parameters.dreamer.train_iterations")
    if not isinstance(planned, int):
        planned = 0
    limit = settings.get("parameters.dreamer.max_env_steps")
    if not isinstance(limit, int):
        limit = None
    if is_locked(folder):
        state = "running"
    elif planned > 0 and is_over(iteration, env_steps, planned, limit):
        state = "complete"
    else:
        state = "stopped"
    algorithm = f"{settings.get('algorithm', '')} {settings.get('version', '')}".strip()
    seed = str(settings.get("operation.seed", ""))
    return [folder.name, algorithm, seed, state, f"{iteration} of {planned}", f"{env_steps:,}", evaluation]


def read_progress(folder: Path) -> tuple[int, int, str]:
    """Return (iteration, env steps, eval/return_ema20 as text) of the newest checkpoint that can be read."""
    trainer = read_trainer(folder)
    average = trainer.get("evaluation_average", {})
    evaluation = f"{average['total'] / average['weight']:.1f}" if average.get("weight") else ""
    return trainer.get("iteration", 0), trainer.get("env_steps", 0), evaluation


def read_trainer(folder: Path) -> dict[str, Any]:
    """Return the trainer's part of the newest checkpoint that can be read, or {} if there is none.

    Neither weights nor checksums are read, so many runs take little time.
    """
    for path in checkpoints(folder):
        try:
            state = torch.load(path, "cpu", weights_only=True, mmap=True)["state"]
            return state.get("trainer") or state["algorithm"]  # the first versions stored it there
        except (OSError, KeyError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile):
            continue
    return {}
