"""Sweeps on a local Ray, as a user starts them: `pip install -r requirements-sweep.txt`, else these are skipped."""

import _thread
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dreamer.checkpoint import checkpoints, load_checkpoint
from dreamer.config import dump_config, load_config
from dreamer.program import MAIN
from dreamer.run_folder import lock_run, make_named_folder
from tests.test_resume import same, scalars

pytest.importorskip("ray")
from dreamer.sweep_ray import last_line, play, size_of  # noqa: E402

ITERATIONS = 8
SMALL = ["environment.frame_skip=20", "operation.device=cpu", f"parameters.dreamer.train_iterations={ITERATIONS}"]
SMALL += [f"parameters.dreamer.{key}=2" for key in ("collect_interval", "evaluate_interval", "seed_episodes")]
SMALL += [f"parameters.dreamer.{key}" for key in ("batch_size=4", "batch_length=8", "horizon_length=4")]
CONFIGS = ["quick-pixels-cheetah-run", "quick-p2e-pendulum-swingup"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(MAIN.parent), "OMP_NUM_THREADS": "1"}


def sweep(folder, *arguments):
    command = [sys.executable, "-m", "dreamer.sweep", "--name", "s", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def process_of(run):
    """The id of the process that has this folder, and of its parent, the worker of Ray; None if there is none."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode().split("\0")
            if f"runs/s/{run.name}" in words and "-m" not in words:
                return int(path.name), int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue


def until(condition, process, seconds=120):
    """Wait for a condition; what it gives then."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    return answer


def test_two_kills_leave_no_trace(tmp_path):
    """SIGKILL of a run before its first checkpoint, and of the worker of another one after its second: it takes the
    run with it. All four end as their commands without Ray do, bit for bit."""
    arguments = ["--config", *CONFIGS, "--seeds", "2", *SMALL]
    commands = sweep(tmp_path, *arguments, "--list").communicate()[0].splitlines()
    process = sweep(tmp_path, *arguments)
    runs = [tmp_path / "runs" / "s" / f"{config}_seed{seed}" for seed in range(2) for config in CONFIGS]
    pid, _ = until(lambda: (runs[0] / "config.yml").exists() and process_of(runs[0]), process)
    os.kill(pid, signal.SIGKILL)
    until(lambda: runs[1].exists() and len(checkpoints(runs[1])) == 2, process)
    pid, worker = process_of(runs[1])
    os.kill(worker, signal.SIGKILL)
    until(lambda: (process_of(runs[1]) or (None,))[0] != pid, process, 5)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert f"{runs[0].name} waiting, retry 1: killed by SIGKILL" in errors
    assert f"{runs[1].name} waiting, retry 1: WorkerCrashedError" in errors and errors.count("retry") == 2
    assert "4 done, 0 running, 0 waiting, 0 failed" in errors
    (tmp_path / "alone").mkdir()
    for run, command in zip(runs, commands, strict=True):
        subprocess.run(shlex.split(command), cwd=tmp_path / "alone", env=ENVIRONMENT, check=True, capture_output=True)
        alone = tmp_path / "alone" / "runs" / "s" / run.name
        (iteration, state), (_, expected) = load_checkpoint(run), load_checkpoint(alone)
        assert iteration == ITERATIONS and len(scalars(run)["replay/steps"]) == ITERATIONS
        assert scalars(run) == scalars(alone)
        assert all(same(state[part], expected[part]) for part in expected.keys() - {"curves"})


def test_ctrl_c_lets_runs_save_and_the_same_command_goes_on(tmp_path):
    arguments = ["--config", CONFIGS[1], "--seeds", "2", *SMALL, "operation.checkpoint_interval=1000"]
    process = sweep(tmp_path, *arguments, f"parameters.dreamer.train_iterations={10**5}")
    runs = [tmp_path / "runs" / "s" / f"{CONFIGS[1]}_seed{seed}" for seed in range(2)]
    for run in runs:
        until(lambda run=run: run.exists() and len(scalars(run).get("replay/steps", [])) > 2, process)
    pids = [process_of(run)[0] for run in runs]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert errors.splitlines()[-1].startswith("stopped; to go on: ") and f"--config {CONFIGS[1]} --seeds 2" in errors
    assert all(checkpoints(run) for run in runs) and not any(map(process_of, runs)), pids
    iterations = max(load_checkpoint(run)[0] for run in runs) + 1
    process = sweep(tmp_path, *arguments, f"parameters.dreamer.train_iterations={iterations}")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and [load_checkpoint(run)[0] for run in runs] == [iterations, iterations], errors


def test_a_failed_run_costs_one_line_and_one_in_use_is_tried_again(tmp_path):
    """The first is not retried; the second counts as no retry."""
    arguments = ["--config", CONFIGS[1], "--vary", "environment.task_name=swingup,nothing", *SMALL, "--retries", "0"]
    good = tmp_path / "runs" / "s" / f"{CONFIGS[1]}_task_name=swingup_seed0"
    make_named_folder(good, dump_config(load_config(CONFIGS[1], SMALL)))
    with lock_run(good):
        process = sweep(tmp_path, *arguments)
        until(lambda: "in use" in (log.read_text() if (log := Path(f"{good}.log")).exists() else ""), process)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1, errors
    assert "swingup_seed0 waiting: error: " in errors and "is in use by another process" in errors
    (line,) = [line for line in errors.splitlines() if "failed: " in line]
    assert "task_name=nothing_seed0 failed: error: environment.task_name: " in line
    assert f"; runs/s/{CONFIGS[1]}_task_name=nothing_seed0.log (" in line
    assert "1 done, 0 running, 0 waiting, 1 failed" in errors.splitlines()[-2]
    assert load_checkpoint(good)[0] == ITERATIONS


def test_a_cancelled_task_waits_until_its_run_has_saved(tmp_path, monkeypatch):
    saving = "import signal, sys, time; from pathlib import Path; here = Path(sys.argv[1])\n"
    saving += "def save(*_): time.sleep(2); here.with_name('saved').touch(); sys.exit(143)\n"
    saving += "signal.signal(signal.SIGTERM, save); here.with_name('begun').touch(); time.sleep(60)"
    monkeypatch.setattr("dreamer.sweep_ray.CODE", saving)

    def cancel():
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        _thread.interrupt_main()  # as Ray does

    threading.Thread(target=cancel).start()
    with pytest.raises(KeyboardInterrupt):
        play([str(tmp_path / "run")], tmp_path / "log", tmp_path, {"CPU": 1, "GPU": 0})
    assert (tmp_path / "saved").exists()


def test_what_a_log_says_last(tmp_path):
    (tmp_path / "log").write_bytes(b"x" * 20_000 + b"\nZeroDivisionError: \xff\n\n")
    assert last_line(tmp_path / "log").startswith("ZeroDivisionError: ")
    (tmp_path / "log").write_bytes(b"")
    assert last_line(tmp_path / "log") == "" and size_of(tmp_path / "nothing") == 0
