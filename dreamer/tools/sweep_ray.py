"""Run a sweep as tasks of a Ray cluster. Each task runs main.py in a new process."""

from __future__ import annotations

import logging
import os
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError

from dreamer.errors import ConfigError
from dreamer.tools.sweep_processes import Tasks, launch, outcome, size_of

if TYPE_CHECKING:
    from dreamer.tools.sweep import Run

POLL_SECONDS = 0.2  # between two polls of a process
TOKEN_PATH = "~/.ray/auth_token"  # Ray's own place for it, unless RAY_AUTH_TOKEN_PATH names another


def connect(address: str, cpus: int, gpus: float | None) -> dict[str, float]:
    """Join a cluster and return the resources of each task, {"CPU": cpus, "GPU": gpus}.

    gpus: None: 1 if the cluster has any, else 0. Raises ConfigError if there is no cluster.
    """
    check_token()
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise ConfigError(f"--address: no Ray at {address}: {' '.join(str(error).split())[:200]}") from None
    nodes = nodes_alive()
    gpus = float(any(node.get("GPU") for node in nodes)) if gpus is None else gpus
    resources = {"CPU": cpus, "GPU": gpus}
    if not has_room(resources):
        largest_amounts = []
        for kind in resources:
            amount = max((node.get(kind, 0) for node in nodes), default=0)
            largest_amounts.append(f"{amount:g} {kind}s")
        largest = " and ".join(largest_amounts)
        reason = f"a run takes {cpus} CPUs and {gpus:g} GPUs, and a machine here has {largest} at most"
        print(f"warning: {reason}; the runs wait for a larger one", file=sys.stderr)
    return resources


def check_token() -> None:
    """Raise ConfigError if other users can read Ray's token, which lets them run any program on the cluster."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN_PATH).expanduser()
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"others can read {path}, which gives them the cluster: chmod 600 {path}")


def nodes_alive() -> list[dict[str, float]]:
    """Return the resources of each machine of the cluster, as Ray counts them."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def has_room(resources: Mapping[str, float]) -> bool:
    """Return whether a machine of the cluster is large enough for a run, busy or not."""

    def fits(node: Mapping[str, float]) -> bool:
        return all(node.get(kind, 0) >= number for kind, number in resources.items())

    return any(fits(node) for node in nodes_alive())


class RayTasks(Tasks):
    """Starts and stops the runs as tasks of Ray. A run's state is "running" once its log has grown."""

    def __init__(self, runs: Sequence[Run], resources: Mapping[str, float], retries: int) -> None:
        """resources: CPUs and GPUs of a task, as `connect` returns them."""
        super().__init__(runs, retries)
        self.train_task = ray.remote(num_cpus=resources["CPU"], num_gpus=resources["GPU"], max_retries=0)(train)
        self.resources = resources
        self.runs_by_task: dict[Any, Run] = {}  # by Ray's references to tasks
        self.log_sizes: dict[Run, int] = {}  # of the log when the run was last started

    def wait(self, seconds: float) -> bool:
        """Start all runs that are due, and wait for some seconds or until a run ends. Return whether no run is left."""
        for run in self.startable():
            del self.due_times[run]
            self.log_sizes[run] = size_of(run.log)
            reference = self.train_task.remote(run.arguments, run.log, os.getcwd(), self.resources)
            self.runs_by_task[reference] = run
        ended = []
        if self.runs_by_task:
            ended, _ = ray.wait(list(self.runs_by_task), num_returns=len(self.runs_by_task), timeout=0)
        for reference in ended:
            self.record_outcome(self.runs_by_task.pop(reference), reference)
        if not ended:
            time.sleep(seconds)  # not in ray.wait, which treats every signal as Ctrl-C
        for run in self.runs_by_task.values():
            if self.has_started(run):
                self.states[run] = "running"
        return not self.runs_by_task and not self.due_times

    def has_started(self, run: Run) -> bool:
        """Return whether the log of a run has grown since it was started."""
        return size_of(run.log) > self.log_sizes[run]

    def record_outcome(self, run: Run, reference: Any) -> None:
        """Set the state of a run whose task has ended. If Ray lost the task before the run began, that is no retry."""
        try:
            status, line = ray.get(reference)
        except RayError as error:
            status, line = None, f"{type(error).__name__}: {str(error).strip().splitlines()[-1].split('. ')[0]}"
            if not isinstance(error, RayTaskError) and not self.has_started(run):
                self.reasons[run] = line
                return self.postpone(run)
        self.handle_exit(run, status, line)

    def stop(self) -> None:
        """Ask each run to save and to end, and wait until all have ended."""
        for reference in self.runs_by_task:
            ray.cancel(reference)
        if self.runs_by_task:
            ray.wait(list(self.runs_by_task), num_returns=len(self.runs_by_task))


def train(arguments: Sequence[str], log: Path, directory: str, resources: Mapping[str, float]) -> tuple[int, str]:
    """Run main.py in a worker of Ray, and return (exit status, reason), as `outcome` does.

    If the worker is killed, Linux kills main.py as well.
    """
    variables = {"OMP_NUM_THREADS": str(resources["CPU"])}
    if not resources["GPU"]:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    with launch(arguments, log, variables, directory) as process:
        try:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)  # Ray's exception for a cancelled task does not end process.wait()
        except BaseException:
            process.terminate()  # Ray's workers and their children block Ctrl-C
            process.wait()
            raise
    return outcome(process, log)
