"""Set up the test process.

MuJoCo's renderer is chosen before any test imports dm_control, which then keeps it. `os.fsync` does nothing, because no
test cuts the power. SIGINT and SIGHUP act as usual even if the tests were started by nohup or in the background.
"""

import errno
import os
import signal
from contextlib import contextmanager, suppress

import pytest

from dreamer.envs.rendering import select_backend
from dreamer.errors import EnvError


def pytest_sessionstart(session):
    with suppress(EnvError):  # without a renderer, only the tests that render fail
        select_backend()
    os.fsync = lambda descriptor: None
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="module")
def short_control_suite():
    """Shorten the Control Suite's episodes to a fifth, 200 simulator steps, to save time."""
    from dreamer.envs.dmc import DMCEnv

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DMCEnv, "max_episode_steps", 200)
        yield


@pytest.fixture
def full_disk(monkeypatch):
    """Return a context manager; in its block the disk is full, so `os.fsync` fails."""

    def sync(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def context():
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", sync)
            yield

    return context
