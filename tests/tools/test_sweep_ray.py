"""Sweeps on Ray; skipped if ray is not installed. tests/tools/test_sweep_processes.py has the tests without Ray."""

import _thread
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from dreamer.errors import ConfigError
from dreamer.tools import sweep_processes
from dreamer.tools.sweep import Run

ray = pytest.importorskip("ray")
from ray.exceptions import NodeDiedError, RayTaskError, WorkerCrashedError  # noqa: E402

from dreamer.tools.sweep_ray import RayTasks, check_token, train  # noqa: E402


@pytest.fixture
def lost(monkeypatch, tmp_path):
    """Return a function that returns the tasks of a run that Ray has lost by an error, and the run. begun: its log
    grew."""

    def lose(error, begun):
        run = Run(tmp_path / "run", (), 1, None)
        tasks = RayTasks([run], {"CPU": 1, "GPU": 0}, 1)
        tasks.due_times.clear()
        tasks.runs_by_task, tasks.log_sizes = {"reference": run}, {run: 0}
        if begun:
            run.log.write_text("begun\n")
        monkeypatch.setattr(ray, "wait", lambda *arguments, **options: (["reference"], []))
        monkeypatch.setattr(ray, "get", lambda reference: (_ for _ in ()).throw(error))
        assert not tasks.wait(0)
        return tasks, run

    return lose


@pytest.mark.parametrize("error", [NodeDiedError("the node is gone"), WorkerCrashedError()])
def test_waiting_run_without_a_node_uses_no_retry(error, lost):
    """It is tried again later, without a limit."""
    tasks, run = lost(error, begun=False)
    assert tasks.retries == Counter() and tasks.states[run] == "waiting"
    assert (
        tasks.due_times[run] - time.monotonic() > sweep_processes.RETRY_SECONDS / 2
        and type(error).__name__ in tasks.reasons[run]
    )


@pytest.mark.parametrize(
    ("error", "begun"),
    [(NodeDiedError("the node is gone"), True), (RayTaskError("train", "no folder", OSError("no folder")), False)],
)
def test_started_or_unstartable_run_uses_a_retry(error, begun, lost):
    tasks, run = lost(error, begun)
    assert tasks.retries == {run: 1} and tasks.startable() == [run]


def test_token_readable_by_others_is_refused(tmp_path, monkeypatch):
    token = tmp_path / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    check_token()
    token.touch(0o600)
    check_token()
    token.chmod(0o640)
    with pytest.raises(ConfigError, match=f"others can read {token}, .*: chmod 600 {token}"):
        check_token()


def test_cancelled_task_waits_until_its_run_has_saved(tmp_path, monkeypatch):
    saving = "import signal, sys, time; from pathlib import Path; here = Path(sys.argv[1])\n"
    saving += "def save(*_): time.sleep(0.5); here.with_name('saved').touch(); sys.exit(143)\n"
    saving += "signal.signal(signal.SIGTERM, save); here.with_name('begun').touch(); time.sleep(60)"
    monkeypatch.setattr(sweep_processes, "MAIN_CODE", saving)

    def cancel():
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        _thread.interrupt_main()  # as Ray does

    threading.Thread(target=cancel).start()
    with pytest.raises(KeyboardInterrupt):
        train([str(tmp_path / "run")], tmp_path / "log", tmp_path, {"CPU": 1, "GPU": 0})
    assert Path(tmp_path / "saved").exists()
