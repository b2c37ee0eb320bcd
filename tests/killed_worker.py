"""The program, in which one data-parallel worker is killed before it writes a checkpoint.

torchrun … tests/killed_worker.py RANK:ITERATION ARGUMENTS…          # the arguments are those of main.py
"""

import os
import signal
import sys
from pathlib import Path

import main
from dreamer.training import checkpoint


def kill_before_writing(write, rank, iteration):
    """Return a function in place of `write_durably` that once kills the process of `rank` (SIGKILL) instead of writing
    the checkpoint of `iteration`."""

    def write_or_die(path, content):
        mark = Path(f"killed-{rank}-{iteration}")
        is_chosen = os.environ["RANK"] == rank and path.name == f"checkpoint-{int(iteration):06}.pt"
        if is_chosen and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    return write_or_die


if __name__ == "__main__":
    killed, *arguments = sys.argv[1:]
    checkpoint.write_durably = kill_before_writing(checkpoint.write_durably, *killed.split(":"))
    sys.exit(main.main(arguments))
