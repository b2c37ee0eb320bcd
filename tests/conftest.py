"""MuJoCo's renderer is chosen once, before anything imports dm_control, which binds to it."""

from contextlib import suppress

from dreamer.envs.rendering import EnvError, select_backend


def pytest_sessionstart(session):
    with suppress(EnvError):  # without one, only the tests that render fail
        select_backend()
