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
def tried(monkeypatch):
    """The back ends tried in a child, each with the outcome that the test sets: an exit status or an exception. A name
    such as egl:1 is that of EGL on a device."""
    outcomes, names = {}, []

    def fake_run(command, env, timeout=None, **_):
        name = ":".join(filter(None, [env["MUJOCO_GL"], env.get("MUJOCO_EGL_DEVICE_ID")]))
        names.append(name)
        assert command[0] == sys.executable and timeout
        if isinstance(outcomes[name], Exception):
            raise outcomes[name]
        return SimpleNamespace(returncode=outcomes[name])

    for name in ("MUJOCO_GL", "MUJOCO_EGL_DEVICE_ID", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")  # to be put back, whatever happens to it
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(subprocess, "run", fake_run)
    return SimpleNamespace(outcomes=outcomes, names=names)


@pytest.mark.parametrize("platform, choice", [("linux", "glfw"), ("darwin", None), ("win32", None)])
def test_the_users_choice_and_that_of_mujoco_elsewhere_are_respected(tried, monkeypatch, platform, choice):
    monkeypatch.setattr(sys, "platform", platform)
    if choice:
        monkeypatch.setenv("MUJOCO_GL", choice)
    assert select_backend() == (choice or "MuJoCo's default")
    assert os.environ.get("MUJOCO_GL") == choice and tried.names == []


@pytest.mark.parametrize(
    "egl, osmesa, chosen",
    [(0, 0, "egl"), (1, 0, "osmesa"), (-11, 0, "osmesa"), (subprocess.TimeoutExpired("python", 1), 0, "osmesa")],
    ids=["egl works", "egl fails", "egl crashes", "egl hangs"],
)
def test_egl_then_osmesa(tried, egl, osmesa, chosen):
    tried.outcomes.update(egl=egl, osmesa=osmesa)
    assert select_backend() == os.environ["MUJOCO_GL"] == chosen
    assert tried.names == ["egl", "osmesa"][: 1 + (chosen == "osmesa")]
    select_backend()
    assert len(tried.names) <= 2  # the second time it is known


@pytest.mark.parametrize(
    "gpu, visible, chosen, outcomes, names, device",
    [
        (1, None, None, {"egl:1": 0}, ["egl:1"], "1"),
        (1, "4,2", "egl", {"egl:2": 0}, ["egl:2"], "2"),
        (0, "3", None, {"egl:3": 1, "egl": 0}, ["egl:3", "egl"], None),  # such as in a container
        (0, None, None, {"egl": 0}, ["egl"], None),  # it is the first one anyway
        (0, "GPU-8932f937", None, {"egl": 0}, ["egl"], None),  # a number that is not known
        (1, None, "osmesa", {}, [], None),
        (None, None, None, {"egl": 0}, ["egl"], None),
    ],
)
def test_egl_draws_where_cuda_computes_if_it_can(gpu, visible, chosen, outcomes, names, device, tried, monkeypatch):
    tried.outcomes.update(outcomes)
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("MUJOCO_GL", chosen)):
        if value:
            monkeypatch.setenv(name, value)
    prefer_gpu(gpu)
    assert select_backend() == select_backend() == (chosen or "egl")
    assert tried.names == names and os.environ.get("MUJOCO_EGL_DEVICE_ID") == device


def test_the_users_device_is_respected(tried, monkeypatch):
    tried.outcomes["egl:2"] = 0
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "2")
    prefer_gpu(1)
    assert select_backend() == "egl" and os.environ["MUJOCO_EGL_DEVICE_ID"] == "2" and tried.names == ["egl:2"]


@pytest.mark.parametrize("egl, osmesa", [(0, 0), (0, 1), (1, 0)])
def test_a_device_that_egl_does_not_have_is_named(egl, osmesa, tried, monkeypatch):
    """Unless EGL works nowhere."""
    tried.outcomes.update({"egl:7": 1, "egl": egl, "osmesa:7": osmesa})
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "7")
    if egl != 0:
        assert select_backend() == "osmesa"
    else:
        with pytest.raises(EnvError, match="^MUJOCO_EGL_DEVICE_ID=7: EGL draws here, but not on that device"):
            select_backend()


@pytest.mark.parametrize("device", ["7", "first"])
def test_so_is_one_of_a_chosen_egl(device):
    failed = run_python("-c", RESET.format(True), MUJOCO_GL="egl", MUJOCO_EGL_DEVICE_ID=device).stderr
    assert f"with MUJOCO_GL=egl, MUJOCO_EGL_DEVICE_ID={device}: " in failed


def test_no_renderer_names_the_packages(tried):
    tried.outcomes.update(egl=1, osmesa=subprocess.TimeoutExpired("python", 1))
    with pytest.raises(EnvError, match="libegl1 .*libosmesa6") as caught:
        select_backend()
    assert "\n" not in str(caught.value)
    assert "MUJOCO_GL" not in os.environ


@pytest.mark.parametrize("probe, limit", [("import time; time.sleep(30)", 0.5), ("import sys; sys.exit(1)", 30)])
def test_a_child_that_hangs_or_fails(monkeypatch, probe, limit):
    monkeypatch.setattr(rendering, "PROBE", probe)
    monkeypatch.setattr(rendering, "TIME_LIMIT", limit)
    assert not rendering._renders("egl")


def test_a_child_sees_the_back_end(monkeypatch):
    monkeypatch.setattr(rendering, "PROBE", "import os; assert os.environ['MUJOCO_GL'] == 'osmesa'")
    assert rendering._renders("osmesa") and not rendering._renders("egl")


def test_what_is_chosen_here_renders_and_vectors_need_no_renderer(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert float(run_python("-c", RESET.format(True), MUJOCO_GL=select_backend()).stdout) > 5
    assert float(run_python("-c", RESET.format(False), MUJOCO_GL="disable").stdout) > 0


PENDULUM = {"benchmark": "gymnasium", "task_name": "InvertedPendulum-v5"}


def test_mujoco_draws_outside_the_control_suite():
    """In a process that has not imported mujoco: seen as pixels, or only filmed."""
    pytest.importorskip("gymnasium")
    code = f"""from tests.envs.toy import make
seen, filmed = make(**{PENDULUM}), make(**{PENDULUM}, from_pixels=False, renders=True)
print(seen.reset()[0].std(), filmed.reset()[0].ndim, filmed.render().std())
seen.close(), filmed.close()"""
    child = run_python("-c", code, MUJOCO_GL="")
    pixels, axes, film = map(float, child.stdout.split())
    assert pixels > 5 and axes == 1 and film > 5, child.stderr


def test_a_back_end_is_selected_when_mujoco_is_imported_and_not_before(tried, monkeypatch):
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    tried.outcomes.update(egl=1, osmesa=0)
    with ready_for_mujoco():
        make_toy(from_pixels=True)
        assert tried.names == []
        importlib.util.find_spec("mujoco")
        assert os.environ["MUJOCO_GL"] == "osmesa"
    monkeypatch.delenv("MUJOCO_GL")
    tried.outcomes.update(osmesa=1)
    with pytest.raises(EnvError, match="nothing renders MuJoCo here"), ready_for_mujoco():
        importlib.util.find_spec("mujoco")
    importlib.util.find_spec("mujoco")  # outside of it nothing is tried


def test_a_back_end_that_the_user_set_and_that_does_not_render_mujoco_is_named(monkeypatch):
    pytest.importorskip("gymnasium")
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(EnvError, match="^MuJoCo does not work here with MUJOCO_GL=disable: .*must be one of"):
        make(**PENDULUM)
    monkeypatch.delitem(sys.modules, "mujoco")
    with pytest.raises(EnvError, match="MUJOCO_GL=disable: it cannot be imported"), ready_for_mujoco():
        importlib.util.find_spec("mujoco")
        raise RuntimeError("it cannot be imported")
