"""What a sweep shows: in a terminal a table that is drawn in place, elsewhere a line for each change."""

import shutil
import sys
import time
from collections import Counter

from tqdm import tqdm

from dreamer.tools.runs import align_columns, read_progress
from dreamer.training.checkpoint_file import checkpoints, iteration_of
from dreamer.training.program import DIRECTORY, nearby
from dreamer.training.run_folder import is_run

COLUMNS = ["run", "state", "iteration", "env steps", "eval/return_ema20", "retries", "left"]
STATES = ["running", "failed", "waiting", "done"]  # which are shown first where not all runs find room
REFRESH = 5  # seconds, at least, between two readings of the folders of runs that are running


class Display:
    """How far the runs of a sweep are, as their folders say."""

    def __init__(self, runs, waiting):
        """waiting: those of the runs that are to be done; the others are complete."""
        self.runs, self.retries, self.due = runs, Counter(), 0
        self.states = dict.fromkeys(runs, "done") | dict.fromkeys(waiting, "waiting")
        self.figures = {run: figures(run) for run in runs}
        self.folder = nearby(runs[0].folder.parent, DIRECTORY)
        self.say(f"{self.folder}: {self.summary()}")
        room = max(3, min(len(runs) + 2, shutil.get_terminal_size().lines - 1))
        room = room if waiting and sys.stderr.isatty() else 0
        self.lines = [tqdm(bar_format="{desc}", position=line) for line in range(room)]

    def show(self, tasks):
        """Show what has changed. tasks: has `states`, `retries` and `reasons`, each by run."""
        before, self.states = self.states, self.states | tasks.states
        retried, self.retries = tasks.retries - self.retries, tasks.retries.copy()
        changed = [run for run in self.runs if self.states[run] != before[run] or run in retried]
        self.figures |= {run: figures(run) for run in changed}
        for run in changed:
            if not self.lines or self.states[run] == "failed":
                self.say(self.change(run, tasks.reasons.get(run)))
        if self.lines and (changed or time.monotonic() > self.due):
            self.draw()

    def draw(self):
        """The table, and below it the summary."""
        began = time.monotonic()
        self.figures |= {run: figures(run) for run in self.runs if self.states[run] == "running"}
        runs = self.runs
        if len(runs) > len(self.lines) - 2:
            runs = sorted(runs, key=lambda run: STATES.index(self.states[run]))[: len(self.lines) - 2]
        texts = [*align_columns([COLUMNS, *map(self.row, runs)]), self.summary()]
        width = shutil.get_terminal_size().columns - 1
        for line, text in zip(self.lines, texts, strict=True):
            line.set_description_str(text[:width])
        self.due = time.monotonic() + max(REFRESH, 10 * (time.monotonic() - began))

    def row(self, run):
        """What stands in the line of a run: text for each of COLUMNS."""
        iteration, env_steps, evaluation, left = self.figures[run]
        state, retries = self.states[run], str(self.retries[run] or "")
        left = "" if left is None or state != "running" else tqdm.format_interval(left)
        return [run.name, state, f"{iteration} of {run.iterations}", env_steps, evaluation, retries, left]

    def change(self, run, reason):
        """What has become of a run, and the summary, as a line. reason: why it ended before its time, if it did."""
        iteration, env_steps, evaluation, _ = self.figures[run]
        state = self.states[run]
        text = f"{run.name} {state}"
        if state == "failed":
            text += f": {reason}; {nearby(run.log, DIRECTORY)}"
        elif state == "waiting":
            text += f", retry {self.retries[run]}: {reason}" if self.retries[run] else f": {reason}"
        elif iteration:
            text += f": iteration {iteration} of {run.iterations}, {env_steps} env steps"
            text += f", eval/return_ema20 {evaluation}" if evaluation else ""
        return f"{text} ({self.summary()})"

    def summary(self):
        """How many runs are in which state."""
        count = Counter(self.states.values())
        return ", ".join(f"{count[state]} {state}" for state in ("done", "running", "waiting", "failed"))

    def say(self, text):
        """A line that stays."""
        tqdm.write(text, file=sys.stderr)

    def close(self):
        for line in self.lines:
            line.close()


def figures(run):
    """(iteration, env steps, average evaluation, seconds left) of a run's newest checkpoint: a number, two texts, and a
    number or None."""
    if not is_run(run.folder):
        return 0, "0", "", None
    iteration, env_steps, evaluation = read_progress(run.folder)
    return iteration, f"{env_steps:,}", evaluation, seconds_left(run)


def seconds_left(run):
    """By the time that lies between the newest two checkpoints; None if there are not two, or if env steps count."""
    if run.max_env_steps:
        return None
    try:
        newest, before = checkpoints(run.folder)[:2]
        seconds = newest.stat().st_mtime - before.stat().st_mtime
    except (ValueError, FileNotFoundError):  # there is one; one was deleted just now
        return None
    last = iteration_of(newest)
    return max(0, run.iterations - last) * seconds / (last - iteration_of(before))
