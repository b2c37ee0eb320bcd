import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from dreamer.envs import rendering
from dreamer.envs.rendering import prefer_gpu, ready_for_mujoco, select_backend
from dreamer.errors import EnvError
from tests.envs.toy import make, make_toy, run_python

RESET = "from tests.envs.toy import make; print(make('dmc-walker-walk', from_pixels={}).reset()[0].std())"


@pytest.fixture
def probes(monkeypatch):
    """Replace the probe processes. A test sets `outcomes`, an exit status or exception by backend; `names` records the
    probes. egl:1 means EGL on device 1."""
    outcomes, names = {}, []

    def fake_run(command, env, timeout=None, **_):
        name = ":".join(filter(None, [env["MUJOCO_GL"], env.get("MUJOCO_EGL_DEVICE_ID")]))
        names.append(name)
        assert command[0] == sys.executable and timeout
        if isinstance(outcomes[name], Exception):
            raise outcomes[name]
        return SimpleNamespace(returncode=outcomes[name])

    for name in ("MUJOCO_GL", "MUJOCO_EGL_DEVICE_ID", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(subprocess, "run", fake_run)
    return SimpleNamespace(outcomes=outcomes, names=names)


@pytest.mark.parametrize("platform, choice", [("linux", "glfw"), ("darwin", None), ("win32", None)])
def test_users_backend_and_other_platforms_are_respected(probes, monkeypatch, platform, choice):
    monkeypatch.setattr(sys, "platform", platform)
    if choice:
        monkeypatch.setenv("MUJOCO_GL", choice)
    assert select_backend() == (choice or "MuJoCo's default")
    assert os.environ.get("MUJOCO_GL") == choice and probes.names == []


@pytest.mark.parametrize(
    "egl, osmesa, expected",
    [(0, 0, "egl"), (1, 0, "osmesa"), (-11, 0, "osmesa"), (subprocess.TimeoutExpired("python", 1), 0, "osmesa")],
    ids=["egl works", "egl fails", "egl crashes", "egl hangs"],
)
def test_egl_is_tried_before_osmesa(probes, egl, osmesa, expected):
    probes.outcomes.update(egl=egl, osmesa=osmesa)
    assert select_backend() == os.environ["MUJOCO_GL"] == expected
    assert probes.names == ["egl", "osmesa"][: 1 + (expected == "osmesa")]
    select_backend()
    assert len(probes.names) <= 2  # the result is cached


@pytest.mark.parametrize(
    "gpu, visible, backend, outcomes, names, device",
    [
        (1, None, None, {"egl:1": 0}, ["egl:1"], "1"),
        (1, "4,2", "egl", {"egl:2": 0}, ["egl:2"], "2"),
        (0, "3", None, {"egl:3": 1, "egl": 0}, ["egl:3", "egl"], None),  # such as in a container
        (0, None, None, {"egl": 0}, ["egl"], None),  # the first device is the default
        (0, "GPU-8932f937", None, {"egl": 0}, ["egl"], None),  # no device number can be derived
        (1, None, "osmesa", {}, [], None),
        (None, None, None, {"egl": 0}, ["egl"], None),
    ],
)
def test_egl_uses_the_cuda_device_if_possible(gpu, visible, backend, outcomes, names, device, probes, monkeypatch):
    probes.outcomes.update(outcomes)
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("MUJOCO_GL", backend)):
        if value:
            monkeypatch.setenv(name, value)
    prefer_gpu(gpu)
    assert select_backend() == select_backend() == (backend or "egl")
    assert probes.names == names and os.environ.get("MUJOCO_EGL_DEVICE_ID") == device


def test_users_egl_device_is_respected(probes, monkeypatch):
    probes.outcomes["egl:2"] = 0
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "2")
    prefer_gpu(1)
    assert select_backend() == "egl" and os.environ["MUJOCO_EGL_DEVICE_ID"] == "2" and probes.names == ["egl:2"]


@pytest.mark.parametrize("egl, osmesa", [(0, 0), (0, 1), (1, 0)])
def test_missing_egl_device_is_named(egl, osmesa, probes, monkeypatch):
    """If EGL works on no device, the error does not name the device."""
    probes.outcomes.update({"egl:7": 1, "egl": egl, "osmesa:7": osmesa})
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "7")
    if egl != 0:
        assert select_backend() == "osmesa"
    else:
        with pytest.raises(EnvError, match="^MUJOCO_EGL_DEVICE_ID=7: EGL draws here, but not on that device"):
            select_backend()


@pytest.mark.parametrize("device", ["7", "first"])
def test_missing_device_of_a_chosen_egl_is_named(device):
    failed = run_python("-c", RESET.format(True), MUJOCO_GL="egl", MUJOCO_EGL_DEVICE_ID=device).stderr
    assert f"with MUJOCO_GL=egl, MUJOCO_EGL_DEVICE_ID={device}: " in failed


def test_error_without_a_renderer_names_the_packages(probes):
    probes.outcomes.update(egl=1, osmesa=subprocess.TimeoutExpired("python", 1))
    with pytest.raises(EnvError, match="libegl1 .*libosmesa6") as caught:
        select_backend()
    assert "\n" not in str(caught.value)
    assert "MUJOCO_GL" not in os.environ


@pytest.mark.parametrize("probe, limit", [("import time; time.sleep(30)", 0.5), ("import sys; sys.exit(1)", 30)])
def test_probe_that_hangs_or_fails_means_no_rendering(monkeypatch, probe, limit):
    monkeypatch.setattr(rendering, "PROBE", probe)
    monkeypatch.setattr(rendering, "TIME_LIMIT", limit)
    assert not rendering._renders("egl")


def test_probe_runs_with_the_backend(monkeypatch):
    monkeypatch.setattr(rendering, "PROBE", "import os; assert os.environ['MUJOCO_GL'] == 'osmesa'")
    assert rendering._renders("osmesa") and not rendering._renders("egl")


def test_selected_backend_renders_and_vectors_need_none(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert float(run_python("-c", RESET.format(True), MUJOCO_GL=select_backend()).stdout) > 5
    assert float(run_python("-c", RESET.format(False), MUJOCO_GL="disable").stdout) > 0


PENDULUM = {"benchmark": "gymnasium", "task_name": "InvertedPendulum-v5"}


def test_gymnasium_mujoco_environments_render():
    """In a new process, an environment renders observations from pixels or films only."""
    pytest.importorskip("gymnasium")
    code = f"""from tests.envs.toy import make
seen, filmed = make(**{PENDULUM}), make(**{PENDULUM}, from_pixels=False, renders=True)
print(seen.reset()[0].std(), filmed.reset()[0].ndim, filmed.render().std())
seen.close(), filmed.close()"""
    child = run_python("-c", code, MUJOCO_GL="")
    pixels, axes, film = map(float, child.stdout.split())
    assert pixels > 5 and axes == 1 and film > 5, child.stderr


def test_backend_is_selected_when_mujoco_is_imported(probes, monkeypatch):
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    probes.outcomes.update(egl=1, osmesa=0)
    with ready_for_mujoco():
        make_toy(from_pixels=True)
        assert probes.names == []
        importlib.util.find_spec("mujoco")
        assert os.environ["MUJOCO_GL"] == "osmesa"
    monkeypatch.delenv("MUJOCO_GL")
    probes.outcomes.update(osmesa=1)
    with pytest.raises(EnvError, match="nothing renders MuJoCo here"), ready_for_mujoco():
        importlib.util.find_spec("mujoco")
    importlib.util.find_spec("mujoco")  # outside the context nothing is probed


def test_users_backend_that_cannot_render_mujoco_is_named(monkeypatch):
    pytest.importorskip("gymnasium")
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(EnvError, match="^MuJoCo does not work here with MUJOCO_GL=disable: .*must be one of"):
        make(**PENDULUM)
    monkeypatch.delitem(sys.modules, "mujoco")
    with pytest.raises(EnvError, match="MUJOCO_GL=disable: it cannot be imported"), ready_for_mujoco():
        importlib.util.find_spec("mujoco")
        raise RuntimeError("it cannot be imported")
