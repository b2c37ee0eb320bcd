"""What holds for all tests: MuJoCo's renderer is chosen once, before anything imports dm_control, which binds to it.
Nothing waits until a file is on the disk: no test pulls the plug. No signal is ignored, as in what nohup starts in the
background."""

import errno
import os
import signal
from contextlib import contextmanager, suppress

import pytest

from dreamer.envs.rendering import select_backend
from dreamer.errors import EnvError


def pytest_sessionstart(session):
    with suppress(EnvError):  # without one, only the tests that render fail
        select_backend()
    os.fsync = lambda descriptor: None
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture
def full_disk(monkeypatch):
    """A context in which no file can be synced."""

    def sync(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def context():
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", sync)
            yield

    return context
