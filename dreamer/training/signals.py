"""Signals and standard error, settled before the imports that take seconds. It imports nothing that does."""

import ctypes
import os
import signal
import sys
from contextlib import contextmanager, suppress

PYTHONS = (3, 10), (3, 13)  # from the first one on, below the second: labmaze, of dm_control, has no wheels for that
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1  # of Linux's sys/prctl.h


class Unbreakable:
    """A stream to which writing never fails: what cannot be written is lost."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        try:
            return self.stream.write(text)
        except (OSError, ValueError):  # full, its reader gone, or closed
            return len(text)

    def flush(self):
        with suppress(OSError, ValueError):
            self.stream.flush()


def begin():
    """From here on a closed standard error does no harm, and until `ready` Ctrl-C ends the program without a word.
    Exits with status 2 and one line where Python is of a version that cannot work."""
    check_python(sys.version_info)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: another file would get its number, and what libraries write there
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, "w"))
    sys.stderr = Unbreakable(sys.stderr)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


def check_python(version):
    oldest, too_new = PYTHONS
    if not oldest <= tuple(version[:2]) < too_new:
        print("error: Python 3.10, 3.11 or 3.12 is needed, not {}.{}".format(*version[:2]), file=sys.stderr)
        sys.exit(2)


def end_with(parent):
    """Let Linux kill this process when the one that started it ends, however that ends. parent: the id of that one."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:  # it has ended already
            os._exit(1)


def leave(number, frame):
    os._exit(128 + number)


def ready():
    """From now on Ctrl-C raises KeyboardInterrupt, and SIGTERM and SIGHUP do as well."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stop in STOPS[1:]:
        if signal.getsignal(stop) != signal.SIG_IGN:  # as under nohup
            signal.signal(stop, terminate)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, whose number is its argument, has come."""


def terminate(number, frame):
    raise Terminated(number)


def status_of(stop):
    """The exit status after a KeyboardInterrupt. One that was raised by other code may have any arguments."""
    return 128 + (stop.args[0] if isinstance(stop, Terminated) else signal.SIGINT)


@contextmanager
def signals_deferred():
    """What arrives within it takes effect at its end."""
    arrived = []
    before = {number: signal.signal(number, lambda number, frame: arrived.append(number)) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)


@contextmanager
def signals_ignored():
    """A second Ctrl-C does not disturb what the first one leads to."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
