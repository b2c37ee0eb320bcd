"""Finds a way to render MuJoCo on this machine, without being told how."""

import os
import subprocess
import sys

PACKAGES = "apt-get install libegl1 libgl1 libgl1-mesa-dri (EGL), or libosmesa6 (OSMesa)"
TIME_LIMIT = 60  # seconds; a broken driver can hang rather than fail
PROBE = """
from dm_control import suite
assert suite.load("pendulum", "swingup").physics.render(64, 64, camera_id=0).max() > 0
"""


class EnvError(ValueError):
    """An environment that cannot be had, or that returns what cannot be used. Its one line says what is wrong."""


def select_backend():
    """Make sure that MUJOCO_GL names a back end that renders, and return it.

    One that the user set is respected. Otherwise EGL, then OSMesa, is tried in a child process; on
    systems other than Linux MuJoCo's own choice stands. It must be called before dm_control is
    imported. Raises EnvError if nothing renders.
    """
    if os.environ.get("MUJOCO_GL"):
        return os.environ["MUJOCO_GL"]
    if not sys.platform.startswith("linux"):
        return "MuJoCo's default"
    for backend in ("egl", "osmesa"):
        if _renders(backend):
            os.environ["MUJOCO_GL"] = backend
            return backend
    raise EnvError(f"nothing renders MuJoCo here: neither EGL nor OSMesa does. On Debian and Ubuntu: {PACKAGES}")


def _renders(backend):
    command = [sys.executable, "-c", PROBE]
    environment = {**os.environ, "MUJOCO_GL": backend}
    try:
        child = subprocess.run(command, env=environment, capture_output=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return False
    return child.returncode == 0
