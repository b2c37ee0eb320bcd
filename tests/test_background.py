"""The process that evaluates, against evaluating in line, whatever happens to it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

import main
from dreamer import background
from dreamer.background import BackgroundEvaluator, ProcessLostError
from dreamer.checkpoint import copy_to_cpu, load_checkpoint
from dreamer.config import load_config
from dreamer.envs.make import make_train_env
from dreamer.envs.rendering import EnvError
from dreamer.evaluation import build_evaluator
from tests.test_resume import PROGRAM, only_run, same, scalars
from tests.toys import SMALL, make_agent

CPU = torch.device("cpu")
HELD = ["environment.benchmark=gym", "environment.task_name=tests.held:Held-v0", "operation.device=cpu", *SMALL]
HELD += ["parameters.dreamer.agent.actor.init_std=0.1"]  # with a large one the mode is 1 or -1 whatever the weights
CONFIG = load_config("dreamer", HELD)


def start(evaluator, iteration):
    """The evaluation of an untrained agent."""
    agent = make_agent(CONFIG, make_train_env(CONFIG.environment, 0))
    weights = {"model": agent.model.state_dict(), "actor": agent.behavior.actor.state_dict()}
    evaluator.start(weights=weights, iteration=iteration, env_steps=10 * iteration, episodes=3, film=False)


def play(evaluator, iteration, wait=True):
    start(evaluator, iteration)
    return evaluator.result(wait)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def in_line():
    """What comes of three evaluations, and the state after them."""
    with closing(build_evaluator(CONFIG, CPU)) as evaluator:
        return [play(evaluator, iteration) for iteration in (1, 2, 3)], copy_to_cpu(evaluator.state_dict())


@pytest.mark.parametrize("fault", ["killed", "hangs"])
def test_a_process_that_is_lost_is_replaced(fault, in_line, monkeypatch, capsys):
    """While it plays the second of three. No result differs, and it is said once."""
    monkeypatch.setattr(background, "TRANSFER_LIMIT", 1)
    with closing(BackgroundEvaluator(CONFIG, CPU)) as evaluator:
        pid, results = evaluator.process.process.pid, [play(evaluator, 1)]
        os.kill(pid, signal.SIGSTOP)
        assert evaluator.result() is None and is_running(pid) and capsys.readouterr().err == ""
        monkeypatch.setattr(background, "EPISODE_LIMIT", 100 if fault == "killed" else 0.1)
        start(evaluator, 2)
        if fault == "killed":
            assert evaluator.result(wait=False) is None
            os.kill(pid, signal.SIGKILL)
        else:
            with pytest.raises(ProcessLostError, match="it takes no message"):
                evaluator.process.send(bytes(10**7))
        results.append(evaluator.result())
        assert not is_running(pid)
        results.append(play(evaluator, 3))
        assert (results, copy_to_cpu(evaluator.state_dict())) == in_line
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("warning: the process that evaluates is lost: it ")


def test_a_process_that_does_not_come_up_is_replaced(in_line, monkeypatch, capsys):
    monkeypatch.setattr(background, "START_LIMIT", 0)
    with closing(BackgroundEvaluator(CONFIG, CPU)) as evaluator:
        assert "it did not answer in time" in capsys.readouterr().err and evaluator.process.process.exitcode
        assert play(evaluator, 1, wait=False) == in_line[0][0]


def test_what_cannot_be_evaluated_is_the_same_error(capsys):
    """One line, no warning beside it, and the process is gone."""
    config = load_config("dreamer", [*HELD, "environment.task_name=Held-v9"])
    with pytest.raises(EnvError, match="environment.task_name: gym (cannot make|has no) 'Held-v9'"):
        BackgroundEvaluator(config, CPU)
    assert capsys.readouterr().err == "" and multiprocessing.active_children() == []


# The whole program

SETTINGS = [f"parameters.dreamer.{setting}" for setting in ("collect_interval=2", "train_iterations=6")]
SETTINGS += ["parameters.dreamer.evaluate_interval=2", "parameters.dreamer.num_evaluate=2"]
NEW = ["--config", "dreamer", *HELD, *SETTINGS]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Evaluated in line."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main.main(NEW) == 0
    return only_run(folder)


@pytest.mark.parametrize(("stop", "resume_in_background"), [(signal.SIGKILL, True), (signal.SIGINT, False)])
def test_an_evaluation_under_way_survives(stop, resume_in_background, uninterrupted, tmp_path, monkeypatch):
    """Killed, or stopped by Ctrl-C, with the evaluation of iteration 2 still going on after iteration 3: the process
    that plays it ends, too, and the run goes on to the same end as one that evaluates in line."""
    (tmp_path / "hold").touch()
    command = [sys.executable, str(PROGRAM), *NEW, "operation.background_evaluation=True"]
    with open(tmp_path / "errors", "w") as errors:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=errors, start_new_session=True)
    try:
        wait_until(lambda: list(tmp_path.glob("runs/*/checkpoint-000003.pt")), seconds=300)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if stop == signal.SIGINT:
            os.killpg(process.pid, stop)  # as a terminal does
        else:
            process.send_signal(stop)
        assert process.wait(60) == (130 if stop == signal.SIGINT else -stop)
        wait_until(lambda: not any(map(is_running, children)), seconds=30)
    finally:
        process.kill()
    assert "Traceback" not in (tmp_path / "errors").read_text()
    run = only_run(tmp_path)
    iteration, state = load_checkpoint(run)
    assert iteration == 3 and state["eval_env"]["pending"]["iteration"] == 2
    assert "eval/return" not in scalars(run)

    (tmp_path / "hold").unlink()
    monkeypatch.chdir(tmp_path)
    assert main.main(["--resume", "latest", f"operation.background_evaluation={resume_in_background}"]) == 0
    assert len(scalars(run)["eval/return"]) == 3 and scalars(run) == scalars(uninterrupted)
    (iteration, state), (_, expected) = load_checkpoint(run), load_checkpoint(uninterrupted)
    assert iteration == 6 and all(same(state[part], expected[part]) for part in state.keys() - {"curves"})
