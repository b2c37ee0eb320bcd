"""How the user calls this program again, from the directory where it was started and in a fresh shell."""

import os
import shlex
import shutil
import sys
from pathlib import Path

MAIN = Path(__file__).resolve().parents[2] / "main.py"


def nearby(path, directory):
    """A path as text, relative if it lies below the directory (None: there is none). Links are not followed: a
    virtual environment's interpreter is one."""
    path = os.path.abspath(path)
    inside = directory is not None and path.startswith(os.path.join(directory, ""))
    return os.path.relpath(path, directory) if inside else path


def interpreter(python, directory):
    """A Python as the shell finds it: by its name alone if that is enough."""
    name = os.path.basename(python)
    known = shutil.which(name) == os.path.abspath(python)
    return shlex.quote(name if known else nearby(python, directory))


def working_directory():
    try:
        return os.getcwd()
    except OSError:  # deleted
        return None


DIRECTORY = working_directory()  # an environment may change it later
PYTHON = interpreter(sys.executable, DIRECTORY)
PROGRAM = f"{PYTHON} {shlex.quote(nearby(MAIN, DIRECTORY))}"
RANKS = os.environ.get("LOCAL_WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in os.environ else None  # on this machine
TRAINER = f"torchrun --nproc-per-node {RANKS} {shlex.quote(nearby(MAIN, DIRECTORY))}" if RANKS else PROGRAM
