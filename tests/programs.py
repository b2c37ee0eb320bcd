"""The program in a process of its own, to be killed. It begins where torch is imported, as the child of a fork server,
which saves the five seconds that the imports take."""

import multiprocessing
import os
import sys
import time
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch._dynamo", "dreamer.main"])  # torch imports the former at a first update


def is_running(pid):
    """Whether there is a process and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Program:
    """`python main.py` with arguments in a folder. What it says is in the files output and errors there."""

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
        """Its exit status, None while it runs; a negative number is the signal that killed it."""
        return self.process.exitcode

    def wait(self, timeout=300):
        self.process.join(timeout)
        assert self.poll() is not None, "it does not end"
        return self.poll()

    def wait_for_start(self):
        while "\nparameters" not in self.output:
            assert self.poll() is None, self.errors
            time.sleep(0.01)

    def signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.process.kill()
        self.process.join()


def _play(folder: Path, streams: tuple[Path, Path], arguments: tuple[str, ...]) -> None:
    os.setsid()  # Ctrl-C in the terminal of the tests is not for it
    os.chdir(folder)
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = ["main.py", *arguments]
    from dreamer.__main__ import main

    main()
