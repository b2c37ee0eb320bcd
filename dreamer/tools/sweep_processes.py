"""The runs of a sweep as processes of this machine. Each is the program itself."""

import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import torch

from dreamer.errors import ConfigError
from dreamer.training.program import MAIN
from dreamer.training.run_folder import IN_USE

AGAIN = 30  # seconds until a run that another process holds is tried again
CODE = "import sys; sys.path.insert(0, {!r}); from dreamer.training.signals import end_with; end_with({}); "
CODE += "from dreamer.__main__ import main; main()"


class Tasks:
    """What becomes of the runs, wherever they are done.

    states: "waiting", "running", "done" or "failed", by run. retries: how often each was started again. reasons: why
    it last ended before its time. due: from when on the runs that are to be started may be, by time.monotonic().
    """

    def __init__(self, runs, retries):
        """retries: how often a run is started again at most."""
        self.states, self.retries, self.reasons = dict.fromkeys(runs, "waiting"), Counter(), {}
        self.due, self.most = dict.fromkeys(runs, 0.0), retries

    def startable(self):
        """Return the runs that may be started now, in the order of the sweep."""
        now = time.monotonic()
        return [run for run in self.states if self.due.get(run, math.inf) <= now]

    def judge(self, run, status, line):
        """A process has ended. What ends with a line "error: …" has said what is wrong; what does not was lost."""
        self.reasons[run] = line
        if status == 0:
            self.states[run] = "done"
        elif status == 2 and line.endswith(IN_USE.format("")):  # a machine that is cut off may go on with it
            self.postpone(run)
        elif line.startswith("error: ") or self.retries[run] == self.most:
            self.states[run] = "failed"
        else:
            self.retries[run] += 1
            self.states[run], self.due[run] = "waiting", 0.0

    def postpone(self, run):
        """Let a run wait for AGAIN seconds, which is no retry."""
        self.states[run], self.due[run] = "waiting", time.monotonic() + AGAIN


class Processes(Tasks):
    """The runs as processes of this machine.

    running: by run, its process and its place. free: the places that no run has, each the environment variables that
    a run gets there.
    """

    def __init__(self, runs, places, retries):
        super().__init__(runs, retries)
        self.free, self.running = list(places), {}

    def wait(self, seconds):
        """Let so much time pass, or none if a run has ended. Returns whether all are done or have failed."""
        for run in self.startable()[: len(self.free)]:
            process = launch(run.arguments, run.log, self.free[0])
            self.running[run] = process, self.free.pop(0)
            self.states[run] = "running"
            del self.due[run]
        ended = [run for run, (process, _) in self.running.items() if process.poll() is not None]
        for run in ended:
            process, place = self.running.pop(run)
            self.free.append(place)
            self.judge(run, *outcome(process, run.log))
        if not ended:
            time.sleep(seconds)
        return not self.running and not self.due

    def stop(self):
        """Let each run save, and wait until all have."""
        for process, _ in self.running.values():
            process.terminate()
        for process, _ in self.running.values():
            process.wait()


def places(jobs, cpus, gpus):
    """Return the places for runs on this machine: for each the environment variables that a run gets there.

    jobs: how many; None: as many as find room. cpus, gpus: of a run; gpus None: one, if there are any. Raises
    ConfigError if there is no room.
    """
    devices, cores = visible_gpus(), usable_cpus()
    gpus = float(bool(devices)) if gpus is None else gpus
    if not gpus:
        shares = [""] * (jobs or cores)
    elif gpus < 1:
        shares = devices * int(1 / gpus)  # the first share of all comes before the second of any
    else:
        whole = int(gpus)
        shares = [",".join(devices[i : i + whole]) for i in range(0, len(devices) - whole + 1, whole)]
    room = jobs or min(cores // cpus, len(shares))
    if not room or room > len(shares):
        here = f"{cores} CPUs and {len(devices)} GPUs, and a run takes {cpus} and {gpus:g}"
        raise ConfigError(f"there is no room for {jobs or 'any'} at once: this machine has {here}")
    return [{"OMP_NUM_THREADS": str(cpus), "CUDA_VISIBLE_DEVICES": share} for share in shares[:room]]


def visible_gpus():
    """Return the names of the GPUs that this process sees, as CUDA_VISIBLE_DEVICES has them."""
    count, names = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[:count] if names else [str(number) for number in range(count)]


def usable_cpus():
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def launch(arguments, log, variables, directory=None):
    """Start the program and return its process. If this process ends, however it does, Linux kills the program.

    log: a file; what the program prints is put behind what is there. variables: of its environment, beside those of
    this process. directory: in which it works; None: this one.
    """
    command = [sys.executable, "-c", CODE.format(str(MAIN.parent), os.getpid()), *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | variables
    with log.open("ab", 0) as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} on {platform.node()}\n".encode())
        return subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # the terminal's Ctrl-C reaches the sweep alone, which stops its runs
        )


def outcome(process, log):
    """Return (exit status, why) of a process that has ended: the last line of its log, or the signal."""
    if process.returncode < 0:
        return process.returncode, f"killed by {signal.Signals(-process.returncode).name}"
    return process.returncode, last_line(log)


def last_line(path):
    """Return the last line of a log that is not blank."""
    with path.open("rb") as file:
        file.seek(max(0, size_of(path) - 10_000))
        return next(filter(None, map(str.strip, reversed(file.read().decode(errors="replace").splitlines()))), "")


def size_of(path):
    """Return the size of a file in bytes, 0 if there is none."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
