"""Set up signals and standard error before slow imports. This module itself imports nothing slow."""

from __future__ import annotations  # so that older versions of Python reach `check_python`

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TextIO

PYTHONS = (3, 10), (3, 14)  # the lowest supported version, the lowest above it that is not
STOPS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))  # Windows has none
PR_SET_PDEATHSIG = 1  # of Linux's sys/prctl.h

_begun = False  # whether `begin` was called: not in a notebook or another program


class Lossy:
    """A stream that drops what cannot be written, so that a run outlives the reader of its messages (`2>&1 | head`)."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()


def begin() -> None:
    """Make standard error lossy. Until `ready`, let Ctrl-C end the program without a message.

    Exits with status 2 and one line if this Python's version cannot work.
    """
    global _begun
    check_python(sys.version_info)
    _begun = True
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: the next opened file would get its descriptor and libraries' output
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    sys.stderr = Lossy(sys.stderr)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


def check_python(version: tuple) -> None:
    """Exit with status 2 and one line if the program cannot run on this version of Python."""
    oldest, too_new = PYTHONS
    if not oldest <= tuple(version[:2]) < too_new:
        print("error: Python 3.10 to 3.13 is needed, not {}.{}".format(*version[:2]), file=sys.stderr)
        sys.exit(2)


def end_with(parent: int) -> None:
    """Let Linux kill this process when its parent ends for any reason. parent: the parent's process id."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:  # it has ended already
            os._exit(1)


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """Handle a signal by ending the process at once."""
    os._exit(128 + number)


def ready() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt from now on. Do nothing unless `begin` was called."""
    if not _begun:
        return
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stop in STOPS[1:]:
        if signal.getsignal(stop) != signal.SIG_IGN:  # as under nohup
            signal.signal(stop, terminate)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP has come; its number is the argument."""


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Handle a signal by raising `Terminated`."""
    raise Terminated(number)


def status_of(stop: KeyboardInterrupt) -> int:
    """Return the exit status after a KeyboardInterrupt. Only the arguments of `Terminated` are a signal's number."""
    return 128 + (stop.args[0] if isinstance(stop, Terminated) else signal.SIGINT)


def stops() -> tuple[signal.Signals, ...]:
    """Return the signals for which this thread can set a handler: STOPS in the main thread, none in others."""
    return STOPS if threading.current_thread() is threading.main_thread() else ()


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Let signals that arrive within the block take effect at its end."""
    arrived: list[int] = []
    handlers = {number: signal.signal(number, lambda number, frame: arrived.append(number)) for number in stops()}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for arrived_number in arrived:
            signal.raise_signal(arrived_number)


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore signals within the block, so that a second Ctrl-C does not interrupt the cleanup after the first."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in stops()}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
