"""Environments in worker processes equal the same environments in this process."""

import os
import signal

import numpy as np
import pytest
import torch

from dreamer.algorithms.policy import random_policy
from dreamer.config.load import load_config
from dreamer.envs import workers as workers_module
from dreamer.envs.make import make_eval_env, make_train_env
from dreamer.errors import EnvError, EnvFault
from dreamer.training.checkpoint import copy_to_cpu
from dreamer.training.collect import run_episodes
from tests.envs.toy import make_toy


def settings(num_envs, task="Wander-v0", **changes):
    own = {"benchmark": "gymnasium", "task_name": f"tests.envs.toy:{task}", "from_pixels": False, "num_envs": num_envs}
    return {**load_config("dreamer").environment, **own, **changes}


@pytest.fixture
def make():
    """Return a function that makes ParallelEnvs, which are closed after the test."""
    environments, processes = [], []

    def make(num_envs=2, seed=0, **changes):
        environments.append(make_train_env(settings(num_envs, **changes), seed))
        processes.extend(getattr(environments[-1].vector, "processes", []))
        return environments[-1]

    yield make
    for env in environments:
        env.close()
    assert not any(process.is_alive() for process in processes)


def play(env, episodes, policy=None):
    """Play episodes. Return each step as a row of numbers without `success`, which is NaN."""
    played = run_episodes(env, policy or random_policy(env), episodes)
    return [[[*step.observation, *step.action, *step[2:7]] for step in episode] for episode in played]


def noisy_policy(step):
    """Draw actions from torch's random state, as the actor does."""
    return torch.randn(len(step.is_first), 1).clamp(-1, 1).numpy()


def test_workers_play_like_single_environments(make):
    """Episodes have different lengths and are terminated or truncated. In the last round some environments are idle."""
    seeds = (np.random.SeedSequence(0).generate_state(4) % 2**31).tolist()  # the second is that of evaluation
    single = [make_train_env(settings(1), 0), *(make_toy("Wander-v0", seed=seed) for seed in seeds[2:])]
    env = make(3)
    episodes = play(env, 7)
    assert episodes == [play(single[number % 3], 1)[0] for number in range(7)]
    assert len({len(episode) for episode in episodes}) > 1
    assert {episode[-1][-3] for episode in episodes} == {True, False}  # is_terminal
    assert env.state_dict()["environments"] == [each.state_dict() for each in single]
    assert (env.observation_space, env.action_space) == (single[0].observation_space, single[0].action_space)
    assert (env.max_agent_steps, env.num_envs) == (single[0].max_agent_steps, 3)


def test_workers_are_restored_from_a_state(make):
    """The workers have received a Ctrl-C before."""
    env, restored = make(), make(seed=1)
    for process in env.vector.processes:
        os.kill(process.pid, signal.SIGINT)
    play(env, 3)
    restored.load_state_dict(copy_to_cpu(env.state_dict()))
    assert play(restored, 3) == play(env, 3)


@pytest.mark.parametrize(
    ("signal_sent", "message_part"),
    [(signal.SIGKILL, r"the process has ended \(exit code -9\)"), (signal.SIGSTOP, "no answer in time")],
    ids=["killed", "hanging"],
)
def test_lost_worker_is_an_error_that_names_it(make, monkeypatch, signal_sent, message_part):
    """The remaining workers are closed, whether they answer or not."""
    env = make()
    play(env, 2)
    monkeypatch.setattr(workers_module, "ANSWER_LIMIT", 0.5)
    monkeypatch.setattr(workers_module, "CLOSE_LIMIT", 0.2)
    processes = env.vector.processes
    os.kill(processes[1].pid, signal_sent)
    if signal_sent == signal.SIGKILL:
        processes[1].join()
    with pytest.raises(EnvError, match=f"^environment.num_envs: worker 2 of 2: {message_part}; --resume goes on.*$"):
        play(env, 2)
    env.close()
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize(
    ("task", "message_part"),
    [
        ("WanderFails-v0", r"raised ZeroDivisionError: a fault of its own$"),
        ("WanderIsLost-v0", r"gave the reward nan; expected [^;]*; --resume.*$"),
    ],
)
def test_environment_error_in_a_worker_is_raised_with_its_traceback(task, message_part, make, capfd):
    """An EnvFault has the worker's traceback."""
    env = make(task=task)
    location = r"^environment.num_envs: worker 1 of 2: the environment's step \(episode 1, env step 4\) "
    with pytest.raises((EnvError, EnvFault), match=location + message_part) as caught:
        play(env, 2)
    env.close()
    assert capfd.readouterr().err == ""
    if caught.type is EnvFault:
        assert "toy.py" in caught.value.trace and caught.value.trace.endswith("a fault\nof its own\n")


def test_environments_run_in_turn_if_workers_do_not_start(make, monkeypatch, capsys):
    workers = make()
    monkeypatch.setattr(workers_module, "START_LIMIT", 0)
    env = make()
    assert not hasattr(env.vector, "processes")
    assert play(env, 3) == play(workers, 3)
    states = []
    for each in (env, workers):
        torch.manual_seed(0)
        states.append((play(each, 3, noisy_policy), each.state_dict()["environments"]))
    assert states[0] == states[1]
    (line,) = capsys.readouterr().err.splitlines()
    message_part = (
        "warning: environment.num_envs: 2 worker processes do not start here (worker 1 of 2: no answer in time); "
    )
    assert line == message_part + "the environments run one after the other"


def test_ctrl_c_while_workers_start_does_not_wait_for_them(monkeypatch):
    """They still import, and would notice after seconds that their pipe is closed."""
    processes = []

    def interrupt(self, numbers, limit):
        processes.extend(self.processes)
        raise KeyboardInterrupt

    monkeypatch.setattr(workers_module.Workers, "_answers", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_train_env(settings(2), 0)
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * 2


@pytest.mark.parametrize(
    ("task", "message_part"),
    [("ToyNoRenderer-v0", "a_renderer is not installed"), ("Wonder-v0", "gymnasium has no .*Wonder-v0")],
)
def test_configuration_errors_equal_those_of_a_single_environment(task, message_part, capsys):
    errors = []
    for num_envs in (1, 2):
        with pytest.raises(EnvError, match=message_part) as caught:
            make_train_env(settings(num_envs, task, from_pixels=True), 0)
        errors.append(str(caught.value))
    assert errors[0] == errors[1] and capsys.readouterr().err == ""


def test_evaluation_environment_does_not_depend_on_num_envs():
    first, *others = (make_eval_env(settings(number), 5).reset()[0] for number in (1, 2, 8))
    np.testing.assert_array_equal(others, [first, first])
