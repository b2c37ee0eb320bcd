"""The runs of a sweep as tasks of a Ray cluster. Each is the program itself, in a process of its own."""

import logging
import os
import stat
import sys
import time
from pathlib import Path

import ray
from ray.exceptions import RayError, RayTaskError

from dreamer.errors import ConfigError
from dreamer.tools.sweep_processes import Tasks, launch, outcome, size_of

LOOK = 0.2  # seconds between two looks at a process
TOKEN = "~/.ray/auth_token"  # Ray's own place for it, unless RAY_AUTH_TOKEN_PATH names another


def connect(address, cpus, gpus):
    """Join a cluster. Returns what each task takes, {"CPU": cpus, "GPU": gpus}.

    gpus: None for one, if there are any. Raises ConfigError.
    """
    check_token()
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise ConfigError(f"no Ray at {address}: {' '.join(str(error).split())[:200]}") from None
    nodes = nodes_alive()
    gpus = float(any(node.get("GPU") for node in nodes)) if gpus is None else gpus
    share = {"CPU": cpus, "GPU": gpus}
    if not has_room(share):
        largest = " and ".join(f"{max((node.get(kind, 0) for node in nodes), default=0):g} {kind}s" for kind in share)
        reason = f"a run takes {cpus} CPUs and {gpus:g} GPUs, and a machine here has {largest} at most"
        print(f"warning: {reason}; the runs wait for a larger one", file=sys.stderr)
    return share


def check_token():
    """Raise ConfigError if others can read the file that lets them run any program on the cluster."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN).expanduser()
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"others can read {path}, which gives them the cluster: chmod 600 {path}")


def nodes_alive():
    """Return what each machine of the cluster has, as Ray counts it."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def has_room(share):
    """Return whether a machine of the cluster is large enough for a run, busy or not."""
    return any(all(node.get(kind, 0) >= number for kind, number in share.items()) for node in nodes_alive())


class RayTasks(Tasks):
    """The runs as tasks of Ray. A run's state is "running" once its log has grown."""

    def __init__(self, runs, share, retries):
        """share: what each takes, as `connect` returns it."""
        super().__init__(runs, retries)
        self.play = ray.remote(num_cpus=share["CPU"], num_gpus=share["GPU"], max_retries=0)(play)
        self.share, self.refs, self.sizes = share, {}, {}  # runs by Ray's references; sizes of their logs

    def wait(self, seconds):
        """Let so much time pass, or none if a run has ended. Returns whether all are done or have failed."""
        for run in self.startable():
            del self.due[run]
            self.sizes[run] = size_of(run.log)
            self.refs[self.play.remote(run.arguments, run.log, os.getcwd(), self.share)] = run
        ended = ray.wait(list(self.refs), num_returns=len(self.refs), timeout=0)[0] if self.refs else []
        for reference in ended:
            self.conclude(self.refs.pop(reference), reference)
        if not ended:
            time.sleep(seconds)  # here, as Ray would take every signal for Ctrl-C
        for run in self.refs.values():
            if self.has_begun(run):
                self.states[run] = "running"
        return not self.refs and not self.due

    def has_begun(self, run):
        return size_of(run.log) > self.sizes[run]

    def conclude(self, run, reference):
        """A task has ended. What Ray lost before the run had begun is not the run's doing: there may be no machine."""
        try:
            status, line = ray.get(reference)
        except RayError as error:
            status, line = None, f"{type(error).__name__}: {str(error).strip().splitlines()[-1].split('. ')[0]}"
            if not isinstance(error, RayTaskError) and not self.has_begun(run):
                self.reasons[run] = line
                return self.postpone(run)
        self.judge(run, status, line)

    def stop(self):
        """Let each run save, and wait until all have."""
        for reference in self.refs:
            ray.cancel(reference)
        if self.refs:
            ray.wait(list(self.refs), num_returns=len(self.refs))


def play(arguments, log, directory, share):
    """In a worker of Ray: the program, until it ends. If the worker is killed, Linux kills the program as well.

    Returns (exit status, why it ended), as `outcome` does.
    """
    variables = {"OMP_NUM_THREADS": str(share["CPU"])}
    if not share["GPU"]:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    with launch(arguments, log, variables, directory) as process:
        try:
            while process.poll() is None:
                time.sleep(LOOK)  # what Ray raises to cancel a task does not end a wait
        except BaseException:
            process.terminate()  # Ray's workers, and what they start, have Ctrl-C blocked
            process.wait()
            raise
    return outcome(process, log)
