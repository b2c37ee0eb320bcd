"""Sweeps on this machine with real runs. The sweep itself runs in this process, except where it is killed."""

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import main
from dreamer.errors import ConfigError
from dreamer.tools import sweep, sweep_processes
from dreamer.tools.sweep_display import Display
from dreamer.tools.sweep_processes import Processes, Tasks, last_line, launch, outcome, run_environments, size_of
from dreamer.training.checkpoint_file import load_checkpoint
from tests.programs import is_running
from tests.test_resume import same, scalars

ITERATIONS = 5
CONFIG = "quick-p2e-pendulum-swingup"
SMALL = [
    "environment.benchmark=gymnasium",
    "environment.task_name=tests.pausing_envs:PausingPendulum-v0",
    "environment.frame_skip=4",
]
SMALL += ["operation.device=cpu", "operation.video_interval=0", f"parameters.dreamer.train_iterations={ITERATIONS}"]
SMALL += [f"parameters.dreamer.{key}=2" for key in ("collect_interval", "evaluate_interval", "seed_episodes")]
SMALL += [f"parameters.dreamer.{key}" for key in ("batch_size=4", "batch_length=8", "horizon_length=4")]
BEFORE_THE_PROGRAM = sweep_processes.MAIN_CODE.partition("from dreamer.__main__")[0]
SWEEP = ["--name", "s", "--config", CONFIG, *SMALL, "--cpus-per-run", str(torch.get_num_threads())]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dreamer.tools.sweep_display.DIRECTORY", str(tmp_path))
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0.02)


@pytest.fixture
def each_look(monkeypatch):
    """Return a function that registers a callback for each status check, called with the sweep's tasks."""

    def install(function):
        class Watched(Display):
            def show(self, tasks):
                super().show(tasks)
                function(tasks)

        monkeypatch.setattr(sweep, "Display", Watched)

    return install


def test_killed_and_stopped_runs_end_with_equal_results(each_look, tmp_path, capsys):
    """A run is killed (SIGKILL) at its start; its next process is stopped by Ctrl-C after three checkpoints; then the
    sweep is repeated. The result equals that of a single uninterrupted run, bit for bit."""
    arguments, folder = [*SWEEP, "--jobs", "1"], tmp_path / "runs" / "s" / f"{CONFIG}_seed0"
    killed, stopped = [], []
    (tmp_path / "hold").touch()

    def disturb(tasks):
        ((process, _),) = tasks.running.values() or [(None, None)]
        if process and not killed and (folder / "config.yml").exists():
            killed.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)
        elif process and not stopped and [*folder.glob("checkpoint-000003.pt")]:
            stopped.append(process.pid)
            signal.raise_signal(signal.SIGINT)

    each_look(disturb)
    assert sweep.main(arguments) == 130
    errors = capsys.readouterr().err
    assert f"{folder.name} waiting, retry 1: killed by SIGKILL" in errors and errors.count("retry") == 1
    assert errors.splitlines()[-1].startswith("stopped; to resume: ") and f"--config {CONFIG} " in errors
    assert killed != stopped and not is_running(*stopped)
    assert load_checkpoint(folder)[0] == 3
    (tmp_path / "hold").unlink()
    assert sweep.main(arguments) == 0
    errors = capsys.readouterr().err
    assert "1 done, 0 running, 0 waiting, 0 failed" in errors and "retry" not in errors
    (run,) = sweep.plan(sweep.parse_arguments(arguments))
    (tmp_path / "alone").mkdir()
    os.chdir(tmp_path / "alone")
    assert main.main(list(run.arguments)) == 0
    alone = tmp_path / "alone" / "runs" / "s" / run.name
    (iteration, state), (_, expected) = load_checkpoint(run.folder), load_checkpoint(alone)
    assert iteration == ITERATIONS and len(scalars(run.folder)["replay/steps"]) == ITERATIONS
    assert scalars(run.folder) == scalars(alone)
    assert all(same(state[part], expected[part]) for part in state.keys() - {"curves"})


@pytest.fixture
def fake_program(monkeypatch):
    """Return a function that replaces the program by the given statements."""

    def install(*lines):
        monkeypatch.setattr(
            sweep_processes, "MAIN_CODE", BEFORE_THE_PROGRAM + "; ".join(lines).replace("{", "{{").replace("}", "}}")
        )

    return install


FAILS_OR_WAITS = """
import os, sys
if any(word.endswith("=nothing") for word in sys.argv):
    sys.exit("error: environment.task_name: there is no such thing")
if os.path.exists("used"):
    sys.exit(print("error: the run is in use by another process", file=sys.stderr) or 2)
"""


def test_failed_run_prints_one_line_and_locked_run_is_retried(each_look, fake_program, monkeypatch, capsys):
    """The failed run is not retried, and waiting for a locked run counts as no retry. With one place runs are
    sequential."""
    monkeypatch.setattr(sweep_processes, "RETRY_SECONDS", 0.1)
    fake_program(FAILS_OR_WAITS)
    arguments = [*SWEEP, "--vary", "environment.task_name=nothing,Pendulum-v1", "--retries", "0", "--jobs", "1"]
    used = Path("used")
    used.touch()

    def release(tasks):
        assert len(tasks.running) <= 1
        if any(reason.endswith("is in use by another process") for reason in tasks.reasons.values()):
            used.unlink(missing_ok=True)

    each_look(release)
    assert sweep.main(arguments) == 1
    errors = capsys.readouterr().err
    assert "Pendulum-v1_seed0 waiting: error: " in errors and "is in use by another process" in errors
    (line,) = [line for line in errors.splitlines() if "failed: " in line]
    assert "task_name=nothing_seed0 failed: error: environment.task_name: " in line
    assert f"; runs/s/{CONFIG}_task_name=nothing_seed0.log (" in line
    assert "1 done, 0 running, 0 waiting, 1 failed" in errors.splitlines()[-2]


def run_of(folder, *arguments):
    return sweep.Run(folder, arguments, 1, None)


def test_runs_get_devices_in_the_order_of_the_sweep(fake_program, tmp_path):
    """A run has the environment variables of its place and is restarted once if it is lost."""
    fake_program(
        "import os, sys", "print(os.environ['PLACE'], os.environ['OMP_NUM_THREADS'])", "sys.exit(os.getppid() < 2)"
    )
    runs = [run_of(tmp_path / str(number)) for number in range(3)]
    tasks, begun = Processes(runs, [{"PLACE": "a", "OMP_NUM_THREADS": "7"}], 1), []
    while not tasks.wait(0.01):
        begun += [run for run in tasks.running if begun[-1:] != [run]]
    assert begun == runs and set(tasks.states.values()) == {"done"} and not tasks.retries
    assert all(run.log.read_text().splitlines()[1] == "a 7" for run in runs)
    fake_program("import sys", "sys.exit(1)")
    tasks, begun = Processes(runs[:2], [{}], 1), []
    while not tasks.wait(0.01):
        begun += [process.pid for process, _ in tasks.running.values() if process.pid not in begun]
    assert len(begun) == 4 and set(tasks.states.values()) == {"failed"} and [*tasks.retries.values()] == [1, 1]
    assert tasks.reasons[runs[0]].endswith(f"on {os.uname().nodename}"), "its log has no line of its own"


def test_stopped_sweep_waits_until_all_runs_have_saved(fake_program, tmp_path):
    saving = "def save(*_): time.sleep(0.5); here.with_name('saved').touch(); sys.exit(143)"
    begin = "signal.signal(signal.SIGTERM, save); here.with_name('begun').touch(); time.sleep(60)"
    fake_program(
        "import signal, sys, time; from pathlib import Path; here = Path(sys.argv[1])\n" + saving + "\n" + begin
    )
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    tasks = Processes([run_of(folder, str(folder)) for folder in folders], [{}, {}], 0)
    for folder in folders:
        folder.parent.mkdir()
    while not all(folder.with_name("begun").exists() for folder in folders):
        tasks.wait(0.01)
    tasks.stop()
    assert all(folder.with_name("saved").exists() for folder in folders)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a process with its parent")
def test_killed_sweep_leaves_no_process(fake_program, tmp_path):
    log, pid_file = tmp_path / "log", tmp_path / "pid"
    fake_program("import time", "time.sleep(60)")

    def start():
        pid_file.write_text(str(launch([], log, {}).pid))
        time.sleep(60)

    process = multiprocessing.get_context("fork").Process(target=start)
    process.start()
    while not (pid_file.exists() and pid_file.read_text()):
        time.sleep(0.02)
    pid = int(pid_file.read_text())
    assert is_running(pid)
    process.kill()
    process.join()
    deadline = time.monotonic() + 60
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(pid)


@pytest.mark.parametrize(
    ("status", "line", "state", "retries"),
    [
        (0, "go on  …", "done", 0),
        (2, "error: runs/s/a is in use by another process", "waiting", 0),
        (2, "error: environment.task_name: …", "failed", 0),
        (1, "error: loss/model is no longer finite", "failed", 0),
        (1, "ZeroDivisionError: division by zero", "waiting", 1),
        (-9, "killed by SIGKILL", "waiting", 1),
        (None, "WorkerCrashedError: …", "waiting", 1),
    ],
)
def test_outcome_of_a_run_follows_from_its_exit_status(status, line, state, retries):
    tasks = Tasks(["run"], 1)
    del tasks.due_times["run"]
    tasks.handle_exit("run", status, line)
    assert (tasks.states["run"], tasks.retries["run"], tasks.reasons["run"]) == (state, retries, line)
    assert ("run" in tasks.due_times) == (state == "waiting") and tasks.startable() == ["run"] * retries
    if retries:
        tasks.handle_exit("run", status, line)
        assert tasks.states["run"] == "failed"


def test_devices_give_environment_variables(monkeypatch):
    monkeypatch.setattr(sweep_processes, "usable_cpus", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert run_environments(None, 2, None) == 4 * [{"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""}]
    assert len(run_environments(12, 2, None)) == 12, "as many as the user wants"

    def devices(*arguments):
        return [environment["CUDA_VISIBLE_DEVICES"] for environment in run_environments(*arguments)]

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices(None, 1, None) == ["0", "1", "2"] and devices(2, 1, 1.0) == ["0", "1"]
    assert devices(None, 1, 0.4) == ["0", "1", "2", "0", "1", "2"] and devices(None, 1, 2.0) == ["0,1"]
    assert devices(None, 4, 0.25) == ["0", "1"] and devices(9, 1, 0.0) == 9 * [""]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c")
    assert devices(None, 3, None) == ["GPU-a", "GPU-b"]
    for arguments in ((4, 1, 1.0), (None, 9, 0.0), (None, 1, 4.0)):
        with pytest.raises(ConfigError, match="this machine has 8 CPUs and 3 GPUs"):
            run_environments(*arguments)


def test_last_line_of_a_log(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"x" * 20_000 + b"\nZeroDivisionError: \xff\n\n")
    assert outcome(SimpleNamespace(returncode=1), log)[1].startswith("ZeroDivisionError: ")
    assert outcome(SimpleNamespace(returncode=-15), log) == (-15, "killed by SIGTERM")
    log.write_bytes(b"")
    assert last_line(log) == "" and size_of(tmp_path / "nothing") == 0
