"""Build the command that calls this program again, in a fresh shell and from the directory where it was started."""

import os
import shlex
import shutil
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]  # a clone, or where pip has put the package


def short_path(path: str | Path, directory: str | None) -> str:
    """Return a path as text, relative if it lies below the directory (None: there is none).

    Links are not followed, because a virtual environment's interpreter is one.
    """
    path = os.path.abspath(path)
    if directory is not None and path.startswith(os.path.join(directory, "")):
        return os.path.relpath(path, directory)
    return path


def interpreter(python: str, directory: str | None) -> str:
    """Return how a shell calls a Python interpreter: by its name if PATH leads to it, else by its path."""
    name = os.path.basename(python)
    known = shutil.which(name) == os.path.abspath(python)
    return shlex.quote(name if known else short_path(python, directory))


def working_directory() -> str | None:
    """Return the working directory; None if it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return None


DIRECTORY = working_directory()  # an environment may change it later
PYTHON = interpreter(sys.executable, DIRECTORY)
IS_CLONE = (HOME / "pyproject.toml").is_file()
SCRIPT = shlex.quote(short_path(HOME / "main.py", DIRECTORY)) if IS_CLONE else "-m dreamer"
INSTALLED = shutil.which("dreamer") == os.path.join(os.path.dirname(sys.executable), "dreamer")  # beside this Python
PROGRAM = "dreamer" if INSTALLED and not IS_CLONE else f"{PYTHON} {SCRIPT}"
RANKS = os.environ.get("LOCAL_WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in os.environ else None  # processes on this machine
TRAINER = f"torchrun --nproc-per-node {RANKS} {SCRIPT}" if RANKS else PROGRAM


def resuming(folder: str | Path, maker: str | None = None) -> str:
    """Return the command that resumes a run. maker: the name of the Python function that makes its environment."""
    if maker:
        return f"dreamer.train(resume={str(folder)!r}, env={maker if maker.isidentifier() else '…'})"
    return f"{TRAINER} --resume {shlex.quote(str(folder))}"
