"""Call an environment's own code, and turn what it raises into an EnvFault."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from dreamer.errors import EnvError, EnvFault, WrongAnswer, in_words

_context: Callable[[], AbstractContextManager] = nullcontext


def run_calls_within(context: Callable[[], AbstractContextManager]) -> None:
    """Run every later call within `context()`, which restores what an environment must not change for others."""
    global _context
    _context = context


def call(name: str, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Return what an environment's function returns. name: begins an error.

    Raises EnvFault for whatever the function raises, and EnvError if it calls sys.exit.
    """
    try:
        with environment_code(name):
            return function(*arguments, **keywords)
    except WrongAnswer as error:
        raise EnvError(f"{name} {error}") from None


@contextmanager
def environment_code(name: str) -> Iterator[None]:
    """Run an environment's own code in the block, within the context that `run_calls_within` has set.

    name: begins an error. Turns exceptions into an EnvFault, and sys.exit into an EnvError. Signals and EnvErrors pass.
    """
    try:
        with _context():
            yield
    except EnvError:
        raise
    except SystemExit as stop:
        raise EnvError(f"{name} called sys.exit({stop.code!r}); expected it to return") from None
    except BaseException as error:
        if _is_signal(error):
            raise
        raise EnvFault(f"{name} raised {in_words(error)}", _trace(error)) from error


def _is_signal(error: BaseException) -> bool:
    """Return whether an exception is that of Ctrl-C, which has no arguments, or of our type for another signal."""
    return isinstance(error, KeyboardInterrupt) and not (type(error) is KeyboardInterrupt and error.args)


def _trace(error: BaseException) -> str:
    """Return the traceback of an error as text, from the environment's own code on."""
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))
