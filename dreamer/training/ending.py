"""End the program: errors that are told in one line, and exit statuses."""

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
)  # the message is enough


def exit_status(action: Callable[..., object], *arguments: object) -> int:
    """Call a function and return the program's exit status. One line on stderr says what ended it early.

    The status is 0; 1 when a loss or gradient is no longer finite, or when the environment's own code fails, whose
    traceback is printed; 2 for what cannot be run; 130 when interrupted, 143 when terminated, 129 when the terminal is
    gone.
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
    """Print the message of an error and return the exit status. A RankError without words is another worker's."""
    if str(error) or not isinstance(error, RankError):
        print(f"error: {str(error) or type(error).__name__}", file=sys.stderr)
    return 1 if isinstance(error, NotFiniteError) else 2
