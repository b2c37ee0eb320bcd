"""End the program: print errors in one line and return the exit status."""

import sys
from collections.abc import Callable

from dreamer.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    EnvError,
    EnvFault,
    ExportError,
    NotFiniteError,
    RankError,
)
from dreamer.training.signals import status_of

ONE_LINE = (
    ConfigError,
    EnvError,
    CheckpointError,
    ExportError,
    DataError,
    NotFiniteError,
    OSError,
    RankError,
)  # printed without a traceback


def exit_status(action: Callable[..., object], *arguments: object) -> int:
    """Call a function and return the program's exit status. Print an error as one line on stderr.

    The status is 0 on success; 1 after a loss or gradient that is not finite, and after an error in the environment's
    own code, whose traceback is printed; 2 after any other error of ONE_LINE; 130 after Ctrl-C, 143 after SIGTERM, 129
    after SIGHUP.
    """
    try:
        action(*arguments)
    except EnvFault as fault:
        print(f"{fault.trace}error: {fault}", file=sys.stderr)
        return 1
    except ONE_LINE as error:
        return _status_after(error)
    except KeyboardInterrupt as stop:
        return status_of(stop)
    return 0


def _status_after(error: Exception) -> int:
    """Print the message of an error and return the exit status. An empty RankError: another worker prints it."""
    if str(error) or not isinstance(error, RankError):
        print(f"error: {str(error) or type(error).__name__}", file=sys.stderr)
    return 1 if isinstance(error, NotFiniteError) else 2
