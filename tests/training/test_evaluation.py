"""Evaluations: what their results depend on, and that background evaluations give the same results."""

import copy
import multiprocessing
import os
import signal
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import main
from dreamer.config.load import load_config
from dreamer.envs.make import make_train_env
from dreamer.errors import EnvError, EnvFault
from dreamer.modules.distributions import TanhNormal
from dreamer.training import evaluation, evaluation_runner
from dreamer.training.checkpoint_file import copy_to_cpu, load_checkpoint
from dreamer.training.evaluation import EvaluationRequest, build_evaluator
from dreamer.training.evaluation_runner import EvaluationRunner, build_evaluation_runner
from tests.programs import Program, is_running
from tests.test_resume import only_run, same, scalars
from tests.toys import (
    SMALL,
    CoinEnv,
    FrameEnv,
    ToyEnv,
    make_agent,
    make_dreamer,
    make_evaluator,
    parameters,
    spy,
    train,
)

# Training without and with evaluations


def train_with(env, interval, video_interval=0):
    settings = ["train_iterations=3", "collect_interval=1", "seed_episodes=1", "batch_size=2", "batch_length=7"]
    settings += ["encoder.depth=1", "decoder.depth=1", f"evaluate_interval={interval}"]
    return train(make_dreamer(env(length=12), *settings, video_interval=video_interval), env(length=12))


@pytest.mark.parametrize("env, intervals, videos", [(ToyEnv, (1, 2), (0, 0)), (FrameEnv, (1, 1), (1, 0))])
def test_evaluations_and_videos_do_not_change_training(env, intervals, videos):
    one, other = map(train_with, (env, env), intervals, videos)
    returns = [agent.trainer.logger.of("eval/return") for agent in (one, other)]
    assert [len(each) for each in returns] == ([3, 2] if env is ToyEnv else [3, 3]) and returns[0][-1] == returns[1][-1]
    film_tags = {tag for tag, *_ in one.trainer.logger.videos}
    assert film_tags == ({"evaluation/episode", "prediction/open_loop"} if any(videos) else set())
    assert other.trainer.logger.videos == []
    for tag in ("train/return", "loss/actor"):
        assert one.trainer.logger.of(tag) == other.trainer.logger.of(tag)
    torch.testing.assert_close(parameters(one), parameters(other), rtol=0, atol=0)


def test_no_prediction_video_before_the_replay_holds_a_window():
    """With a train ratio, learning waits until a window fits."""
    settings = ["train_iterations=1", "train_ratio=1", "seed_episodes=1", "batch_length=50"]
    agent = train(make_dreamer(FrameEnv(length=4), *settings, video_interval=1), FrameEnv(length=4))
    assert [tag for tag, *_ in agent.trainer.logger.videos] == ["evaluation/episode"]


# Inputs of an evaluation


def request(agent, **changes):
    weights = {"model": agent.model.state_dict(), "actor": agent.actor.state_dict()}
    return EvaluationRequest(weights, iteration=3, env_steps=7, episodes=2, film=False)._replace(**changes)


def test_returns_depend_on_weights_iteration_seed_and_env_state_only():
    """Each of these inputs changes the returns; the global random state does not."""
    agent, other = (make_dreamer(ToyEnv(), seed=seed) for seed in (1, 2))
    evaluator = make_evaluator(agent, CoinEnv())
    state = copy_to_cpu(evaluator.env.state_dict())
    expected, after = copy.deepcopy(evaluator.play(state, request(agent)))
    torch.rand(5)
    assert evaluator.play(state, request(agent))[0] == expected and (expected.env_steps, len(expected.returns)) == (
        7,
        2,
    )
    other_inputs = [(state, request(other)), (state, request(agent, iteration=4)), (after, request(agent))]
    results = [evaluator.play(*each)[0] for each in other_inputs]
    evaluator.seed += 1
    results.append(evaluator.play(state, request(agent))[0])
    assert all(result.returns != expected.returns for result in results)


@pytest.mark.parametrize("env", [FrameEnv(length=3), ToyEnv(length=3)])
@pytest.mark.parametrize("film", [True, False])
def test_first_episode_is_filmed_from_pixels(env, film):
    agent = make_dreamer(env, "encoder.depth=1", "decoder.depth=1")
    env.episode = 0
    (_, _, returns, frames, *_), _ = make_evaluator(agent, env).play(env.state_dict(), request(agent, film=film))
    assert len(returns) == 2
    if film and isinstance(env, FrameEnv):
        assert frames.shape == (4, 64, 64, 3) and frames.dtype == np.uint8
        assert frames[:, 0, 0, 0].tolist() == [20, 21, 22, 23]
    else:
        assert frames is None


def test_result_is_returned_once():
    agent = make_dreamer(ToyEnv())
    evaluations = EvaluationRunner(partial(make_evaluator, agent, ToyEnv()))
    assert evaluations.result() is None
    evaluations.start(request(agent))
    assert evaluations.result() is not None and evaluations.result() is None


def test_interrupted_evaluation_is_repeated_after_restoring():
    agent = make_dreamer(ToyEnv())
    one, other = (EvaluationRunner(partial(make_evaluator, agent, CoinEnv())) for _ in range(2))
    one.start(request(agent))
    other.load_state_dict(copy_to_cpu(one.state_dict()))
    assert one.result() == other.result()
    assert "pending" not in one.state_dict() and copy_to_cpu(one.state_dict()) == copy_to_cpu(other.state_dict())


@pytest.mark.parametrize("sample", [False, True])
def test_evaluation_sample_selects_modes_or_samples(sample, monkeypatch):
    calls = spy(monkeypatch, evaluation, "Policy")
    with closing(
        build_evaluator(load_config("dreamer", [*ENV_SETTINGS, f"evaluation.sample={sample}"]), CPU)
    ) as evaluator:
        evaluator.returns(iteration=0, episodes=1)
    distribution = TanhNormal(torch.full((1, 1), 0.5), torch.ones(1, 1))
    ((_, policy),) = calls
    assert torch.equal(policy.act(distribution), distribution.mode) is not sample


# The background process


CPU = torch.device("cpu")
ENV_SETTINGS = [
    "environment.benchmark=gymnasium",
    "environment.task_name=tests.pausing_envs:PausingEvaluation-v0",
    "operation.device=cpu",
    *SMALL,
]
ENV_SETTINGS += ["parameters.dreamer.agent.actor.init_std=0.1"]  # with a large std the mode is always 1 or -1
CONFIG = load_config("dreamer", ENV_SETTINGS)
MAKE = partial(build_evaluator, CONFIG, CPU)


def start(evaluations, iteration):
    """Start the evaluation of an untrained agent."""
    agent = make_agent(CONFIG, make_train_env(CONFIG.environment, 0))
    evaluations.start(request(agent, iteration=iteration, env_steps=10 * iteration, episodes=3))


def play(evaluations, iteration, wait=True):
    start(evaluations, iteration)
    return evaluations.result(wait)


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def in_line():
    """Return the results of three evaluations in this process, and the state after them."""
    with closing(EvaluationRunner(MAKE)) as evaluations:
        return [play(evaluations, iteration) for iteration in (1, 2, 3)], copy_to_cpu(evaluations.state_dict())


@pytest.mark.parametrize("failure", ["killed", "hangs"])
def test_lost_background_process_is_replaced(failure, in_line, monkeypatch, capsys):
    """The process is lost during the second of three evaluations. The results are equal and one warning is printed."""
    with closing(EvaluationRunner(MAKE, background=True)) as evaluations:
        pid, results = evaluations.process.process.pid, [play(evaluations, 1)]
        os.kill(pid, signal.SIGSTOP)
        assert evaluations.result() is None and is_running(pid) and capsys.readouterr().err == ""
        monkeypatch.setattr(evaluation_runner, "EPISODE_LIMIT", 100 if failure == "killed" else 0.1)
        start(evaluations, 2)
        if failure == "killed":
            assert evaluations.result(wait=False) is None
            os.kill(pid, signal.SIGKILL)
        results.append(evaluations.result())
        assert not is_running(pid)
        results.append(play(evaluations, 3))
        assert (results, copy_to_cpu(evaluations.state_dict())) == in_line
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("warning: the process that evaluates is lost (it ")


def test_background_process_that_does_not_start_is_replaced(in_line, monkeypatch, capsys):
    """One evaluator in this process replaces it."""
    calls = spy(monkeypatch, evaluation, "make_eval_env")
    monkeypatch.setattr(evaluation_runner, "START_LIMIT", 0)
    with closing(EvaluationRunner(MAKE, background=True)) as evaluations:
        assert len(calls) == 1
        assert "it did not answer in time" in capsys.readouterr().err and multiprocessing.active_children() == []
        assert play(evaluations, 1, wait=False) == in_line[0][0]


def make_one_only(holder):
    """Return an evaluator, or raise if called in process `holder`, which already has the only possible environment."""
    if os.getpid() == holder:
        raise EnvFault("the making of 'One-v0' raised RuntimeError: one emulator\nfor each process", "its traceback")
    return MAKE()


def test_evaluation_moves_to_a_process_if_a_second_environment_fails(in_line, capsys):
    """The results are equal. If that process is lost, the error advises --resume."""
    with closing(EvaluationRunner(partial(make_one_only, os.getpid()))) as evaluations:
        warning = capsys.readouterr().err
        assert warning.startswith(
            "warning: a second environment cannot be made in this process (the making of 'One-v0'"
        )
        assert warning.endswith("evaluation runs in a process of its own\n") and warning.count("\n") == 1
        assert play(evaluations, 1) == in_line[0][0]
        start(evaluations, 2)
        evaluations.process.process.kill()
        with pytest.raises(EnvError, match="is lost .*, and a second environment cannot be made in this one; --resume"):
            evaluations.result()


def test_environment_error_of_the_background_process_is_raised(capsys):
    """The error is raised without a warning, and the process ends."""
    config = load_config("dreamer", [*ENV_SETTINGS, "environment.task_name=PausingEvaluation-v9"])
    with pytest.raises(EnvError, match="environment.task_name: gymnasium (cannot make|has no) 'PausingEvaluation-v9'"):
        EvaluationRunner(partial(build_evaluator, config, CPU), background=True)
    assert capsys.readouterr().err == "" and multiprocessing.active_children() == []


def test_only_the_background_process_is_prepared(tmp_path, monkeypatch):
    """This process trains, perhaps on another device, so the preparation must not change it."""
    monkeypatch.setattr("dreamer.training.device.keep_memory", lambda: pytest.fail("tuned"))
    prepared = tmp_path / "prepared"
    for background in (False, True):
        with closing(EvaluationRunner(MAKE, background, partial(Path.touch, prepared))):
            assert prepared.exists() == background


@pytest.mark.parametrize("setting, device", [("same", "meta"), ("cpu", "cpu")])
def test_evaluation_device_setting(setting, device, monkeypatch):
    """The evaluator is on the training device (here meta) or on the configured one."""
    monkeypatch.setattr(evaluation_runner, "EvaluationRunner", lambda make, background, prepare: (make, prepare))
    config = load_config("dreamer", [*ENV_SETTINGS, f"operation.evaluation_device={setting}"])
    make, prepare = build_evaluation_runner(config, torch.device("meta"))
    assert prepare.args == (config, torch.device(device))
    with closing(make()) as evaluator:
        assert {each.device for each in evaluator.actor.parameters()} == {torch.device(device)}


# The whole program

SETTINGS = [f"parameters.dreamer.{setting}" for setting in ("collect_interval=2", "train_iterations=6")]
SETTINGS += ["parameters.dreamer.evaluate_interval=2", "parameters.dreamer.num_evaluate=2"]
NEW = ["--config", "dreamer", *ENV_SETTINGS, *SETTINGS]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Return a run that was evaluated in its own process."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main.main(NEW) == 0
    return only_run(folder)


@pytest.mark.parametrize(("stop", "resume_in_background"), [(signal.SIGKILL, True), (signal.SIGINT, False)])
def test_interrupted_background_evaluation_is_repeated_after_resume(
    stop, resume_in_background, uninterrupted, tmp_path, monkeypatch
):
    """The run is killed or stopped by Ctrl-C after iteration 3, during the evaluation of iteration 2. The background
    process ends, too, and the resumed run has the result of an uninterrupted one."""
    (tmp_path / "hold").touch()
    process = Program(tmp_path, *NEW, "operation.background_evaluation=True")
    try:
        wait_until(lambda: list(tmp_path.glob("runs/2*/checkpoint-000003.pt")), seconds=300)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if stop == signal.SIGINT:
            os.killpg(process.pid, stop)  # as a terminal does
        else:
            process.signal(stop)
        assert process.wait() == (130 if stop == signal.SIGINT else -stop)
        wait_until(lambda: not any(map(is_running, children)), seconds=300)
    finally:
        process.kill()
    assert "Traceback" not in process.errors
    run = only_run(tmp_path)
    iteration, state = load_checkpoint(run)
    assert iteration == 3 and state["eval_env"]["pending"]["iteration"] == 2
    assert "eval/return" not in scalars(run)

    (tmp_path / "hold").unlink()
    monkeypatch.chdir(tmp_path)
    assert main.main(["--resume", "latest", f"operation.background_evaluation={resume_in_background}"]) == 0
    assert len(scalars(run)["eval/return"]) == 3 and scalars(run) == scalars(uninterrupted)
    (iteration, state), (_, expected) = load_checkpoint(run), load_checkpoint(uninterrupted)
    assert iteration == 6 and all(
        same(state[part], expected[part]) for part in state.keys() - {"curves", "configuration"}
    )
