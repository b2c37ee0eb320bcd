"""The runs of a sweep as tasks of Ray. Each is the program itself, in a process of its own."""

import logging
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import ray
from ray.exceptions import RayError

from dreamer.config import ConfigError
from dreamer.program import MAIN
from dreamer.run_folder import IN_USE

AGAIN = 30  # seconds until a run that another process holds is tried again
LOOK = 0.2  # seconds between two looks at a process
CODE = "import sys; sys.path.insert(0, {!r}); from dreamer.startup import end_with; end_with({}); "
CODE += "from dreamer.__main__ import main; main()"
OBJECTS = 2**27  # bytes for what tasks return, which is little; Ray would take a third of the memory


def connect(address, cpus, gpus):
    """Join a cluster or, without an address, make one of this machine.

    Returns what each task takes, {"CPU": cpus, "GPU": gpus}. gpus: None for one, if there are any. Raises ConfigError.
    """
    own = {} if address else {"include_dashboard": False, "object_store_memory": OBJECTS}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise ConfigError(f"no Ray at {address or 'this machine'}: {' '.join(str(error).split())[:200]}") from None
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = float(any(node.get("GPU") for node in nodes)) if gpus is None else gpus
    share = {"CPU": cpus, "GPU": gpus}
    if not any(all(node.get(kind, 0) >= number for kind, number in share.items()) for node in nodes):
        largest = " and ".join(f"{max(node.get(kind, 0) for node in nodes):g} {kind}s" for kind in share)
        reason = f"a run takes {cpus} CPUs and {gpus:g} GPUs, and a machine here has {largest} at most"
        if not address:
            raise ConfigError(reason)
        print(f"warning: {reason}; the runs wait for a larger one", file=sys.stderr)
    return share


class Tasks:
    """What is done of the runs.

    states: "waiting", "running", "done" or "failed", by run. retries: how often each was started again. reasons: why
    it last ended before its time.
    """

    def __init__(self, runs, share, retries):
        """share: what each takes, as `connect` returns it. retries: of a run, at most."""
        remote = ray.remote(num_cpus=share["CPU"], num_gpus=share["GPU"], max_retries=0)
        self.play, self.share, self.most = remote(play), share, retries
        self.states, self.retries, self.reasons = dict.fromkeys(runs, "waiting"), Counter(), {}
        self.refs, self.sizes, self.due = {}, {}, {}  # runs by Ray's references; of their logs; when to submit them
        for run in runs:
            self.submit(run)

    def submit(self, run):
        self.states[run], self.sizes[run] = "waiting", size_of(run.log)
        self.refs[self.play.remote(run.arguments, run.log, os.getcwd(), self.share)] = run

    def wait(self, seconds):
        """Let so much time pass, or none if a run has ended. Returns whether all are done or have failed."""
        for run in [run for run, due in self.due.items() if due <= time.monotonic()]:
            del self.due[run]
            self.submit(run)
        ended = ray.wait(list(self.refs), num_returns=len(self.refs), timeout=0)[0] if self.refs else []
        for reference in ended:
            self.judge(self.refs.pop(reference), *result_of(reference))
        if not ended:
            time.sleep(seconds)  # here, as Ray would take every signal for Ctrl-C
        for run in self.refs.values():
            if size_of(run.log) > self.sizes[run]:
                self.states[run] = "running"
        return not self.refs and not self.due

    def judge(self, run, status, line):
        """A process has ended. What ends with a line "error: …" has said what is wrong; what does not was lost."""
        self.reasons[run] = line
        if status == 0:
            self.states[run] = "done"
        elif status == 2 and line.endswith(IN_USE.format("")):  # a machine that is cut off may go on with it
            self.states[run], self.due[run] = "waiting", time.monotonic() + AGAIN
        elif line.startswith("error: ") or self.retries[run] == self.most:
            self.states[run] = "failed"
        else:
            self.retries[run] += 1
            self.submit(run)

    def stop(self):
        """Let each run save, and wait until all have."""
        for reference in self.refs:
            ray.cancel(reference)
        if self.refs:
            ray.wait(list(self.refs), num_returns=len(self.refs))


def result_of(reference):
    """(exit status, why) of a task; None for a status if it was lost."""
    try:
        return ray.get(reference)
    except RayError as error:
        return None, f"{type(error).__name__}: {str(error).strip().splitlines()[-1].split('. ')[0]}"


def play(arguments, log, directory, share):
    """In a worker of Ray: the program, until it ends. If the worker is killed, Linux kills the program as well.

    log: what it prints is put behind what is there. Returns (exit status, why: its last line, or the signal).
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(share["CPU"]), "PYTHONUNBUFFERED": "1"}
    if not share["GPU"]:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-c", CODE.format(str(MAIN.parent), os.getpid()), *arguments]
    with log.open("ab", 0) as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} on {platform.node()}\n".encode())
        streams = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
        with subprocess.Popen(command, cwd=directory, env=environment, **streams) as process:
            try:
                while process.poll() is None:
                    time.sleep(LOOK)  # what Ray raises to cancel a task does not end a wait
            except BaseException:
                process.terminate()  # Ray's workers, and what they start, have Ctrl-C blocked
                process.wait()
                raise
    if process.returncode < 0:
        return process.returncode, f"killed by {signal.Signals(-process.returncode).name}"
    return process.returncode, last_line(log)


def last_line(path):
    """Of a log, without blank ones."""
    with path.open("rb") as file:
        file.seek(max(0, size_of(path) - 10_000))
        return next(filter(None, map(str.strip, reversed(file.read().decode(errors="replace").splitlines()))), "")


def size_of(path):
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
