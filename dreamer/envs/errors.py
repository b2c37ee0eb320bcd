"""What can be wrong with an environment, each in one line."""

import difflib
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class EnvError(ValueError):
    """An environment that cannot be had, or that returns what cannot be used. Its one line says what is wrong."""


def not_installed(benchmark, package):
    """The EnvError of a benchmark whose package is an option, with the command that installs it."""
    command = [sys.executable, "-m", "pip", "install", "-r", str(ROOT / f"requirements-{benchmark}.txt")]
    return EnvError(
        f"environment.benchmark: {benchmark} needs {package}, which is not installed: {shlex.join(command)}"
    )


def nearest(name, known):
    """A hint at the names that look most like one that is not known."""
    lower = {other.lower(): other for other in known}
    names = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.4)]
    return f"; did you mean {', '.join(names or list(known)[:30])}?"


def one_line(error):
    """Return the text of an exception without line breaks."""
    return " ".join(str(error).split())
