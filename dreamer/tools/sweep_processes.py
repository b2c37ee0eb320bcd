"""Run a sweep as processes of this machine. Each runs main.py."""

from __future__ import annotations

import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dreamer.errors import ConfigError
from dreamer.training.program import HOME
from dreamer.training.run_folder import IN_USE

if TYPE_CHECKING:
    from dreamer.tools.sweep import Run

RETRY_SECONDS = 30  # until the next attempt to start a run that another process holds
MAIN_CODE = "import sys; sys.path.insert(0, {!r}); from dreamer.training.signals import end_with; end_with({}); "
MAIN_CODE += "from dreamer.__main__ import main; main()"
RunEnvironment = Mapping[str, str]  # environment variables of a run


class Tasks:
    """Keeps the state of each run of a sweep; subclasses start and stop the runs.

    states: "waiting", "running", "done" or "failed", by run. retries: how often a run was restarted. reasons: why a run
    last ended early. due_times: when a waiting run may be started, by time.monotonic().
    """

    def __init__(self, runs: Sequence[Run], retries: int) -> None:
        """retries: the largest number of restarts of a run."""
        self.states, self.max_retries = dict.fromkeys(runs, "waiting"), retries
        self.due_times = dict.fromkeys(runs, 0.0)
        self.retries: Counter[Run] = Counter()
        self.reasons: dict[Run, str] = {}

    def wait(self, seconds: float) -> bool:
        """Start the runs that fit, and wait for some seconds or until a run ends. Return whether no run is left."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ask each run to save and to end, and wait until all have ended."""
        raise NotImplementedError

    def startable(self) -> list[Run]:
        """Return the runs that may be started now, in the order of the sweep."""
        now = time.monotonic()
        return [run for run in self.states if self.due_times.get(run, math.inf) <= now]

    def handle_exit(self, run: Run, status: int | None, line: str) -> None:
        """Set the state of a run whose process has ended with this exit status and last line.

        A run whose last line is "error: …" has failed. Any other run with an exit status but 0 was lost and is
        restarted.
        """
        self.reasons[run] = line
        if status == 0:
            self.states[run] = "done"
        elif status == 2 and line.endswith(IN_USE.format("")):  # a process on another machine may still train it
            self.postpone(run)
        elif line.startswith("error: ") or self.retries[run] == self.max_retries:
            self.states[run] = "failed"
        else:
            self.retries[run] += 1
            self.states[run], self.due_times[run] = "waiting", 0.0

    def postpone(self, run: Run) -> None:
        """Let a run wait for AGAIN seconds. This does not count as a retry."""
        self.states[run], self.due_times[run] = "waiting", time.monotonic() + RETRY_SECONDS


class Processes(Tasks):
    """Starts and stops the runs as processes of this machine.

    running: {run: (process, its environment variables)}. free_environments: environment variables that no run uses now.
    One set of environment variables gives CPUs and GPUs to one run at a time.
    """

    def __init__(self, runs: Sequence[Run], run_environments: Iterable[RunEnvironment], retries: int) -> None:
        super().__init__(runs, retries)
        self.free_environments = list(run_environments)
        self.running: dict[Run, tuple[subprocess.Popen, RunEnvironment]] = {}

    def wait(self, seconds: float) -> bool:
        """Start the runs that fit, and wait for some seconds or until a run ends. Return whether no run is left."""
        for run in self.startable()[: len(self.free_environments)]:
            process = launch(run.arguments, run.log, self.free_environments[0])
            self.running[run] = process, self.free_environments.pop(0)
            self.states[run] = "running"
            del self.due_times[run]
        ended = [run for run, (process, _) in self.running.items() if process.poll() is not None]
        for run in ended:
            process, environment = self.running.pop(run)
            self.free_environments.append(environment)
            self.handle_exit(run, *outcome(process, run.log))
        if not ended:
            time.sleep(seconds)
        return not self.running and not self.due_times

    def stop(self) -> None:
        """Ask each run to save and to end, and wait until all have."""
        for process, _ in self.running.values():
            process.terminate()
        for process, _ in self.running.values():
            process.wait()


def run_environments(jobs: int | None, cpus: int, gpus: float | None) -> list[RunEnvironment]:
    """Return environment variables that give CPUs and GPUs of this machine to a run, one set for each run at a time.

    jobs: number of runs at a time; None: as many as fit. cpus, gpus: of a run; gpus None: 1 if there are any, else 0.
    Raises ConfigError if there is no room.
    """
    devices, cpu_count = visible_gpus(), usable_cpus()
    gpus = float(bool(devices)) if gpus is None else gpus
    if not gpus:
        gpu_names = [""] * (jobs or cpu_count)
    elif gpus < 1:
        gpu_names = devices * int(1 / gpus)  # each GPU gets a first run before any gets a second
    else:
        gpus_per_run = int(gpus)
        first_gpus = range(0, len(devices) - gpus_per_run + 1, gpus_per_run)
        gpu_names = [",".join(devices[first : first + gpus_per_run]) for first in first_gpus]
    count = jobs or min(cpu_count // cpus, len(gpu_names))
    if not count or count > len(gpu_names):
        machine = f"this machine has {cpu_count} CPUs and {len(devices)} GPUs, and a run takes {cpus} and {gpus:g}"
        raise ConfigError(f"--jobs: no room for {jobs or 'a run'} at once: {machine}; ask for less")
    return [{"OMP_NUM_THREADS": str(cpus), "CUDA_VISIBLE_DEVICES": gpu_name} for gpu_name in gpu_names[:count]]


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process sees, as CUDA_VISIBLE_DEVICES writes them."""
    count, names = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[:count] if names else [str(number) for number in range(count)]


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def launch(
    arguments: Sequence[str], log: Path, variables: Mapping[str, str], directory: str | None = None
) -> subprocess.Popen:
    """Start main.py and return its process. If this process ends for any reason, Linux kills the new one.

    log: the file to append its output to. variables: added to this process's environment variables. directory: its
    working directory; None: that of this process.
    """
    command = [sys.executable, "-c", MAIN_CODE.format(str(HOME), os.getpid()), *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **variables}
    with log.open("ab", 0) as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} on {platform.node()}\n".encode())
        return subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # the terminal's Ctrl-C reaches only the sweep, which stops its runs
        )


def outcome(process: subprocess.Popen, log: Path) -> tuple[int, str]:
    """Return (exit status, reason) of a process that has ended. The reason is the last line of its log, or a signal."""
    if process.returncode < 0:
        return process.returncode, f"killed by {signal.Signals(-process.returncode).name}"
    return process.returncode, last_line(log)


def last_line(path: Path) -> str:
    """Return the last line of a log that is not blank, or ""."""
    with path.open("rb") as file:
        file.seek(max(0, size_of(path) - 10_000))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 if there is no file."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
