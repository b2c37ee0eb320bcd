"""The errors that the program reports in one line, and the wording of that line. Imports nothing of the program."""

import difflib
import shlex
import sys
import traceback
from collections.abc import Collection


class ConfigError(ValueError):
    """A configuration that cannot be run. Its one line names the key or the file and says what to do."""


class CheckpointError(Exception):
    """There is no usable checkpoint. Its one line says why."""


class ExportError(ValueError):
    """An exported agent that cannot be written, read or shared. Its one line names the file."""


class DataError(ValueError):
    """Recorded episodes that cannot be read, written or used. Its one line names the file."""


class DamagedError(ValueError):
    """A file of a run is missing or is not what the run wrote. Its one line names the file."""


class NotFiniteError(ArithmeticError):
    """A loss, a gradient, a weight or an action has become infinite or NaN. Its one line says which."""


class RankError(RuntimeError):
    """Another data-parallel worker has failed or does not answer. Its text is empty if that worker tells the reason."""


class InputError(ValueError):
    """An observation or an action that an agent cannot take. Its one line says what was found and what is expected."""


class EnvError(ValueError):
    """An environment that cannot be made, or whose answers cannot be used. Its one line says what is wrong."""


class WrongAnswer(EnvError):
    """An answer of an environment that is not the expected one. The code that catches it adds which call it was."""


class EnvFault(Exception):
    """The environment's own code raised an error. Its one line says which error, and in which call."""

    def __init__(self, line: str, trace: str) -> None:
        """trace: the error's traceback, as text."""
        super().__init__(line, trace)  # pickle, which sends it to another process, needs both
        self.line, self.trace = line, trace

    def __str__(self) -> str:
        return self.line


def in_words(error: BaseException) -> str:
    """Return the type and the text of an error, in one line."""
    text = one_line("".join(traceback.format_exception_only(error)))
    return text if len(text) <= 300 else f"{text[:300]} …"


def not_installed(benchmark: str, package: str, *options: str) -> EnvError:
    """Return the error of a benchmark whose package is not installed. options: of the pip command that it names."""
    return EnvError(
        f"environment.benchmark: {benchmark} needs {package}, which is not installed: {pip_install(*options, package)}"
    )


def pip_install(*words: str) -> str:
    """Return the command that installs packages for this Python."""
    return shlex.join([sys.executable, "-m", "pip", "install", *words])


def nearest(name: str, known: Collection[str]) -> str:
    """Return a hint at the known names that look most like an unknown one."""
    known_by_lower_case = {known_name.lower(): known_name for known_name in known}
    matches = difflib.get_close_matches(name.lower(), known_by_lower_case, n=3, cutoff=0.4)
    suggestions = [known_by_lower_case[match] for match in matches] or list(known)[:30]
    return f"; did you mean {', '.join(suggestions)}?"


def one_line(error: BaseException | str) -> str:
    """Return the text of an exception, or a text, without line breaks."""
    return " ".join(str(error).split())
