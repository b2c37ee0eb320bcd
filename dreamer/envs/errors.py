"""What can be wrong with an environment, each in one line."""

import difflib
import shlex
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class EnvError(ValueError):
    """An environment that cannot be had, or that returns what cannot be used. Its one line says what is wrong."""


class WrongAnswer(EnvError):
    """What a call of an environment has answered, and what was expected. Whoever catches it adds which call it was."""


class EnvFault(Exception):
    """The environment's own code raised an error. Its one line says which error, and in which call."""

    def __init__(self, line, trace):
        """trace: the error's traceback, as text."""
        super().__init__(line, trace)  # both, so that it can be sent from one process to another
        self.line, self.trace = line, trace

    def __str__(self):
        return self.line


def in_words(error):
    """The type of an error and what it says, in one line."""
    words = " ".join("".join(traceback.format_exception_only(error)).split())
    return words if len(words) <= 300 else f"{words[:300]} …"


_warned = set()  # what was warned about in this process


def warn_once(line, about=None):
    """Print a warning, unless there was one about the same before; None: of the same words."""
    if None not in _warned and (about or line) not in _warned:
        _warned.add(about or line)
        print(f"warning: {line}", file=sys.stderr)


def warned():
    """Return what was warned about, for `take_as_warned` in another process."""
    return frozenset(_warned)


def take_as_warned(subjects):
    """Do not warn about these again; [None]: about nothing."""
    _warned.update(subjects)


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
