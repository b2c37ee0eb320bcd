"""Find a back end that renders MuJoCo on this machine."""

import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from dreamer.errors import EnvError, one_line

DEVICE = "MUJOCO_EGL_DEVICE_ID"  # the number of the device that EGL draws on
APT_PACKAGES = "apt-get install libegl1 libgl1 libgl1-mesa-dri (EGL), or libosmesa6 (OSMesa)"
TIME_LIMIT = 60  # seconds; a broken driver can hang rather than fail
PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light pos='0 0 3'/><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 64, 64) as renderer:
    renderer.update_scene(data)
    assert renderer.render().max() > 0
"""


_gpu: int | None = None  # the CUDA device that the next `select_backend` tries to draw on


def prefer_gpu(number: int | None) -> None:
    """Let the next `select_backend` try to draw on the CUDA device of this number; None: on any."""
    global _gpu
    _gpu = number


def select_backend() -> str:
    """Make sure that MUJOCO_GL names a back end that renders, and return it.

    One that the user set is respected. Otherwise EGL, then OSMesa, is tried in a child process; on
    systems other than Linux MuJoCo's own choice stands. It must be called before dm_control is
    imported. Raises EnvError if nothing renders, or if the user chose a device that EGL does not have.
    """
    if sys.platform.startswith("linux"):
        _draw_where_cuda_computes()
    if os.environ.get("MUJOCO_GL"):
        return os.environ["MUJOCO_GL"]
    if not sys.platform.startswith("linux"):
        return "MuJoCo's default"
    device = os.environ.get(DEVICE)
    for backend in ("egl", "osmesa"):
        if _renders(backend, device):
            os.environ["MUJOCO_GL"] = backend
            return backend
        if backend == "egl" and device and _renders("egl"):
            raise EnvError(f"{DEVICE}={device}: EGL draws here, but not on that device; take another one, or unset it")
    raise EnvError(f"nothing renders MuJoCo here: neither EGL nor OSMesa does. On Debian and Ubuntu: {APT_PACKAGES}")


def _draw_where_cuda_computes() -> None:
    """Choose the preferred device for EGL, whose default is the first. EGL probably numbers devices as CUDA does; the
    probe tells."""
    global _gpu
    number, _gpu = _gpu, None
    if number is None or os.environ.get(DEVICE) or os.environ.get("MUJOCO_GL") not in (None, "", "egl"):
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    device = visible.split(",")[number].strip() if visible else str(number)
    if device.isdecimal() and int(device) > 0 and _renders("egl", device):
        os.environ.update({"MUJOCO_GL": "egl", DEVICE: device})


def _renders(backend: str, device: str | None = None) -> bool:
    """Return whether a back end renders, in a process of its own. device: of EGL, by its number; None: any."""
    command = [sys.executable, "-c", PROBE]
    environment = {**os.environ, "MUJOCO_GL": backend, DEVICE: device or ""}
    if not device:
        del environment[DEVICE]
    try:
        child = subprocess.run(command, env=environment, capture_output=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return False
    return child.returncode == 0


class _SelectBeforeMuJoCo:
    """Selects a back end when mujoco is imported, which then reads MUJOCO_GL. Python calls `find_spec` of each object
    in `sys.meta_path` for a module that it imports."""

    asked = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Return None: another finder has the module."""
        if name == "mujoco":
            self.asked = True
            select_backend()


@contextmanager
def ready_for_mujoco() -> Iterator[None]:
    """Select a back end when the block imports MuJoCo; do nothing if it does not.

    Raises EnvError if nothing renders MuJoCo, or if mujoco cannot be imported with the MUJOCO_GL that the user set.
    """
    finder = _SelectBeforeMuJoCo()
    sys.meta_path.insert(0, finder)
    try:
        yield
    except EnvError:
        raise
    except Exception as error:
        if finder.asked and "mujoco" not in sys.modules:
            raise _does_not_work("MuJoCo", error) from None
        raise
    finally:
        sys.meta_path.remove(finder)
    if "mujoco" in sys.modules:  # it may have been imported before
        select_backend()


@contextmanager
def explaining_backend(library: str = "dm_control") -> Iterator[None]:
    """Turn any error of the block into an EnvError that names MUJOCO_GL, and print nothing else. Each back end raises
    errors of its own, and more when its half-made objects are deleted."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # deletes the half-made objects now
            raise _does_not_work(library, error) from None
        finally:
            sys.unraisablehook = hook


def _does_not_work(library: str, error: Exception) -> EnvError:
    settings = f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '')}"
    if os.environ.get(DEVICE):
        settings += f", {DEVICE}={os.environ[DEVICE]}"
    return EnvError(f"{library} does not work here with {settings}: {one_line(error)}")
