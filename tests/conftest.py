"""MuJoCo's renderer is chosen once, before anything imports dm_control, which binds to it."""

import errno
import os
from contextlib import contextmanager, suppress

import pytest

from dreamer.envs.rendering import select_backend
from dreamer.errors import EnvError


def pytest_sessionstart(session):
    with suppress(EnvError):  # without one, only the tests that render fail
        select_backend()


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
