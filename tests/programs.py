"""Run the program in its own process, so that a test can kill it.

A fork server that has imported torch starts the process, which saves the seconds of the imports.
"""

import multiprocessing
import os
import sys
import time
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch._dynamo", "dreamer.main"])  # the first update imports torch._dynamo


def is_running(pid):
    """Return whether the process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Program:
    """`python main.py` with arguments in a folder. Its stdout and stderr are in the files output and errors there."""

    def __init__(self, folder, *arguments):
        folder.mkdir(exist_ok=True)
        self.streams = folder / "output", folder / "errors"
        for stream in self.streams:
            stream.write_text("")
        self.process = CONTEXT.Process(target=_play, args=(folder, self.streams, arguments))
        self.process.start()
        self.pid = self.process.pid

    @property
    def output(self):
        return self.streams[0].read_text()

    @property
    def errors(self):
        return self.streams[1].read_text()

    def poll(self):
        """Return the exit status, or None while the program runs; a negative status is minus the killing signal."""
        return self.process.exitcode

    def wait(self, timeout=300):
        """Wait for the end of the program. Return its exit status."""
        self.process.join(timeout)
        assert self.poll() is not None, "the program does not end"
        return self.poll()

    def wait_for_start(self):
        """Wait until the program has printed its parameters, just before the seed episodes."""
        while "\nparameters" not in self.output:
            assert self.poll() is None, self.errors
            time.sleep(0.01)

    def signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.process.kill()
        self.process.join()


def _play(folder: Path, streams: tuple[Path, Path], arguments: tuple[str, ...]) -> None:
    os.setsid()  # Ctrl-C in the terminal of the tests must not stop it
    os.chdir(folder)
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = ["main.py", *arguments]
    from dreamer.__main__ import main

    main()
