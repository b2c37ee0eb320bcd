"""Display a sweep: as a table that is redrawn in a terminal, elsewhere as a line for each change."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from dreamer.tools.runs import align_columns, read_progress
from dreamer.training.checkpoint_file import checkpoints, iteration_of
from dreamer.training.program import DIRECTORY, short_path
from dreamer.training.run_folder import is_run

if TYPE_CHECKING:
    from dreamer.tools.sweep import Run
    from dreamer.tools.sweep_processes import Tasks

COLUMNS = ["run", "state", "iteration", "env steps", "eval/return_ema20", "retries", "left"]
STATES = ["running", "failed", "waiting", "done"]  # order in which runs are shown if not all fit
MIN_REFRESH_SECONDS = 5  # at least, between two readings of the folders of runs that are running


class Display:
    """Shows the progress of the runs of a sweep, read from their folders."""

    def __init__(self, runs: Sequence[Run], incomplete_runs: Sequence[Run]) -> None:
        """incomplete_runs: those of `runs` that are still to be trained."""
        self.runs = runs
        self.retries: Counter[Run] = Counter()
        self.next_drawing = 0.0  # by time.monotonic()
        self.states = dict.fromkeys(runs, "done") | dict.fromkeys(incomplete_runs, "waiting")
        self.figures = {run: read_figures(run) for run in runs}
        self.folder = short_path(runs[0].folder.parent, DIRECTORY)
        self.print_line(f"{self.folder}: {self.summary()}")
        line_count = 0
        if incomplete_runs and sys.stderr.isatty():
            line_count = max(3, min(len(runs) + 2, shutil.get_terminal_size().lines - 1))
        self.lines = [tqdm(bar_format="{desc}", position=line) for line in range(line_count)]

    def show(self, tasks: Tasks) -> None:
        """Show the runs whose state has changed, and redraw the table every few seconds."""
        previous_states, self.states = self.states, self.states | tasks.states
        retried_runs, self.retries = tasks.retries - self.retries, tasks.retries.copy()
        changed_runs = [run for run in self.runs if self.states[run] != previous_states[run] or run in retried_runs]
        self.figures |= {run: read_figures(run) for run in changed_runs}
        for run in changed_runs:
            if not self.lines or self.states[run] == "failed":
                self.print_line(self.describe_change(run, tasks.reasons.get(run)))
        if self.lines and (changed_runs or time.monotonic() > self.next_drawing):
            self.draw()

    def draw(self) -> None:
        """Draw the table, and below it the summary."""
        drawing_started = time.monotonic()
        self.figures |= {run: read_figures(run) for run in self.runs if self.states[run] == "running"}
        runs = self.runs
        if len(runs) > len(self.lines) - 2:
            runs = sorted(runs, key=lambda run: STATES.index(self.states[run]))[: len(self.lines) - 2]
        texts = [*align_columns([COLUMNS, *map(self.row, runs)]), self.summary()]
        width = shutil.get_terminal_size().columns - 1
        for line, text in zip(self.lines, texts, strict=True):
            line.set_description_str(text[:width])
        self.next_drawing = time.monotonic() + max(MIN_REFRESH_SECONDS, 10 * (time.monotonic() - drawing_started))

    def row(self, run: Run) -> list[str]:
        """Return the cells of a run, one for each of COLUMNS."""
        iteration, env_steps, evaluation, seconds = self.figures[run]
        state, retries = self.states[run], str(self.retries[run] or "")
        left = "" if seconds is None or state != "running" else tqdm.format_interval(seconds)
        return [run.name, state, f"{iteration} of {run.iterations}", env_steps, evaluation, retries, left]

    def describe_change(self, run: Run, reason: str | None) -> str:
        """Return a line with the new state of a run and the summary. reason: why the run ended early, if it did."""
        iteration, env_steps, evaluation, _ = self.figures[run]
        state = self.states[run]
        text = f"{run.name} {state}"
        if state == "failed":
            text += f": {reason}; {short_path(run.log, DIRECTORY)}"
        elif state == "waiting":
            text += f", retry {self.retries[run]}: {reason}" if self.retries[run] else f": {reason}"
        elif iteration:
            text += f": iteration {iteration} of {run.iterations}, {env_steps} env steps"
            text += f", eval/return_ema20 {evaluation}" if evaluation else ""
        return f"{text} ({self.summary()})"

    def summary(self) -> str:
        """Return the number of runs in each state, as text."""
        counts = Counter(self.states.values())
        return ", ".join(f"{counts[state]} {state}" for state in ("done", "running", "waiting", "failed"))

    def print_line(self, text: str) -> None:
        """Print a line above the table."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Close the table and leave it on the screen."""
        for line in self.lines:
            line.close()


def read_figures(run: Run) -> tuple[int, str, str, float | None]:
    """Return (iteration, env steps, eval/return_ema20, seconds left) of a run's newest checkpoint."""
    if not is_run(run.folder):
        return 0, "0", "", None
    iteration, env_steps, evaluation = read_progress(run.folder)
    return iteration, f"{env_steps:,}", evaluation, seconds_left(run)


def seconds_left(run: Run) -> float | None:
    """Return the seconds until a run is complete, by the time between its newest two checkpoints.

    Return None if the run has fewer than two, or if it ends by env steps.
    """
    if run.max_env_steps:
        return None
    try:
        newest, previous = checkpoints(run.folder)[:2]
        seconds = newest.stat().st_mtime - previous.stat().st_mtime
    except (ValueError, FileNotFoundError):  # fewer than two; one was deleted just now
        return None
    newest_iteration, previous_iteration = iteration_of(newest) or 0, iteration_of(previous) or 0
    return max(0, run.iterations - newest_iteration) * seconds / (newest_iteration - previous_iteration)
