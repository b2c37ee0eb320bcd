import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from dreamer.envs import rendering
from dreamer.envs.rendering import EnvError, select_backend
from tests.envs.toy import run_python

RESET = "from tests.envs.toy import make; print(make('dmc-walker-walk', from_pixels={}).reset()[0].std())"


@pytest.fixture
def tried(monkeypatch):
    """The back ends tried in a child, each with the outcome that the test sets: an exit status or an exception."""
    outcomes, names = {}, []

    def fake_run(command, env, timeout=None, **_):
        name = env["MUJOCO_GL"]
        names.append(name)
        assert command[0] == sys.executable and timeout
        if isinstance(outcomes[name], Exception):
            raise outcomes[name]
        return SimpleNamespace(returncode=outcomes[name])

    monkeypatch.delenv("MUJOCO_GL", raising=False)
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
    start = time.monotonic()
    assert not rendering._renders("egl")
    assert time.monotonic() - start < 10


def test_a_child_sees_the_back_end(monkeypatch):
    monkeypatch.setattr(rendering, "PROBE", "import os; assert os.environ['MUJOCO_GL'] == 'osmesa'")
    assert rendering._renders("osmesa") and not rendering._renders("egl")


def test_what_is_chosen_here_renders_and_vectors_need_no_renderer(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert float(run_python("-c", RESET.format(True), MUJOCO_GL=select_backend()).stdout) > 5
    assert float(run_python("-c", RESET.format(False), MUJOCO_GL="disable").stdout) > 0
