"""The runs there are, as a table: `python main.py --list`."""

import pickle
import zipfile

import torch

from dreamer.training.checkpoint_file import checkpoints
from dreamer.training.run_folder import all_runs, is_locked, read_settings
from dreamer.training.schedule import is_over

COLUMNS = ["run", "algorithm", "seed", "state", "iteration", "env steps", "eval/return_ema20"]


def list_runs(root):
    """A line for each run in `root`, in the order in which they started, as text."""
    runs = all_runs(root)
    if not runs:
        return f"there is no run in {root.absolute()}"
    return "\n".join(align_columns([COLUMNS, *map(describe, runs)]))


def align_columns(lines):
    """Lines of cells, as lines of text whose columns are as wide as their longest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def describe(folder):
    """What stands in the line of a run: text for each of COLUMNS, empty where it is not known."""
    settings, (iteration, env_steps, evaluation) = read_settings(folder), read_progress(folder)
    planned, limit = (settings.get(f"parameters.dreamer.{key}") for key in ("train_iterations", "max_env_steps"))
    planned, limit = planned if isinstance(planned, int) else 0, limit if isinstance(limit, int) else None
    is_complete = planned > 0 and is_over(iteration, env_steps, planned, limit)
    state = "running" if is_locked(folder) else "complete" if is_complete else "stopped"
    algorithm = f"{settings.get('algorithm', '')} {settings.get('version', '')}".strip()
    seed = str(settings.get("operation.seed", ""))
    return [folder.name, algorithm, seed, state, f"{iteration} of {planned}", f"{env_steps:,}", evaluation]


def read_progress(folder):
    """(iteration, env steps, average evaluation) of the newest checkpoint that can be read: two numbers and a text."""
    trainer = read_trainer(folder)
    average = trainer.get("evaluation_average", {})
    evaluation = f"{average['total'] / average['weight']:.1f}" if average.get("weight") else ""
    return trainer.get("iteration", 0), trainer.get("env_steps", 0), evaluation


def read_trainer(folder):
    """The trainer's part of the newest checkpoint that can be read; nothing if there is none.

    The weights in it are not read, nor are checksums looked at, so that many runs take little time.
    """
    for path in checkpoints(folder):
        try:
            state = torch.load(path, "cpu", weights_only=True, mmap=True)["state"]
            return state.get("trainer") or state["algorithm"]  # where the first versions had it
        except (OSError, KeyError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile):
            continue
    return {}
