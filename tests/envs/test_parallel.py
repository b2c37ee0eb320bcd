"""Environments in worker processes against the same ones in this process."""

import os
import signal
import time

import numpy as np
import pytest
import torch

from dreamer.algorithms.policy import random_policy
from dreamer.checkpoint import copy_to_cpu
from dreamer.collect import run_episode, run_episodes
from dreamer.config import load_config
from dreamer.envs import parallel
from dreamer.envs.make import make_eval_env, make_train_env
from dreamer.envs.rendering import EnvError


def settings(num_envs, task="Wander-v0", **changes):
    environment = load_config("dreamer").environment
    own = {"benchmark": "gym", "task_name": f"tests.envs.toy:{task}", "from_pixels": False, "num_envs": num_envs}
    return {**environment, **own, **changes}


@pytest.fixture
def make():
    """Makes ParallelEnvs and closes them; no worker outlives them."""
    made, processes = [], []

    def make(num_envs=2, seed=0, **changes):
        made.append(make_train_env(settings(num_envs, **changes), seed))
        processes.extend(getattr(made[-1].vector, "processes", []))
        return made[-1]

    yield make
    for env in made:
        env.close()
    assert not any(process.is_alive() for process in processes)


def singles(count, seed=0):
    """The same environments, as single ones: that of a run with one of them, and those with the further seeds."""
    alone = [make_train_env(settings(1), seed) for _ in range(count)]
    for env, own in zip(alone[1:], np.random.SeedSequence(seed).generate_state(count + 1)[2:].tolist(), strict=True):
        env.reset(seed=own)
        env.action_space.seed(own)
    return alone


def noisy_policy(step):
    """Draws from torch's random state, as the actor does."""
    return torch.randn(len(step.is_first), 1).clamp(-1, 1).numpy()


def assert_same(episodes, others):
    assert [len(episode) for episode in episodes] == [len(other) for other in others]
    for episode, other in zip(episodes, others, strict=True):
        for step, expected in zip(episode, other, strict=True):
            np.testing.assert_array_equal(step.observation, expected.observation)
            np.testing.assert_array_equal(step.action, expected.action)
            assert step[2:] == expected[2:]


def test_each_plays_as_it_would_alone(make):
    """Episodes of different lengths, ended by the task or by the clock; in the last round the others rest."""
    env, alone = make(3), singles(3)
    episodes = list(run_episodes(env, random_policy(env), 7))
    expected = [list(run_episode(alone[number % 3], random_policy(alone[number % 3]))) for number in range(7)]
    assert_same(episodes, expected)
    assert len({len(episode) for episode in episodes}) > 1
    assert {episode[-1].is_terminal for episode in episodes} == {True, False}
    assert env.state_dict()["environments"] == [each.state_dict() for each in alone]


def test_what_the_algorithm_asks_of_an_environment(make):
    env, (alone, *_) = make(), singles(2)
    assert (env.observation_space, env.action_space) == (alone.observation_space, alone.action_space)
    assert env.max_agent_steps == alone.max_agent_steps and env.num_envs == 2


def test_goes_on_from_a_state(make):
    """In workers that have seen a Ctrl-C."""
    env = make()
    processes = env.vector.processes
    for process in processes:
        os.kill(process.pid, signal.SIGINT)
    list(run_episodes(env, random_policy(env), 3))
    state = copy_to_cpu(env.state_dict())
    fresh = make(seed=1)
    fresh.load_state_dict(state)
    assert_same(*(list(run_episodes(each, random_policy(each), 3)) for each in (fresh, env)))
    assert env.vector.processes is processes


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda process: os.kill(process.pid, signal.SIGKILL), r"the process has ended \(exit code -9\)"),
        (lambda process: os.kill(process.pid, signal.SIGSTOP), "no answer in time"),
    ],
    ids=["killed", "hanging"],
)
def test_a_lost_worker_is_the_end(make, monkeypatch, fault, words):
    """One line says which one; what is still there is closed in time."""
    monkeypatch.setattr(parallel, "ANSWER_LIMIT", 1)
    monkeypatch.setattr(parallel, "CLOSE_LIMIT", 0.2)
    env = make()
    list(run_episodes(env, random_policy(env), 2))
    fault(env.vector.processes[1])
    with pytest.raises(EnvError, match=f"^environment.num_envs: worker 2 of 2: {words}; --resume goes on") as caught:
        list(run_episodes(env, random_policy(env), 2))
    assert "\n" not in str(caught.value)
    start = time.monotonic()
    env.close()
    assert time.monotonic() - start < 2


def test_an_environment_that_raises_is_the_end(make, capfd):
    env = make(task="WanderFails-v0")
    with pytest.raises(EnvError, match=r"worker 1 of 2: ZeroDivisionError\('a fault of its own'\); --resume"):
        list(run_episodes(env, random_policy(env), 2))
    env.close()
    assert capfd.readouterr().err == ""


def test_where_workers_do_not_start_they_are_not_needed(make, monkeypatch, capsys):
    torch.manual_seed(0)
    expected = list(run_episodes(make(), noisy_policy, 3))
    monkeypatch.setattr(parallel, "START_LIMIT", 0)
    env = make()
    assert not hasattr(env.vector, "processes")
    torch.manual_seed(0)
    assert_same(list(run_episodes(env, noisy_policy, 3)), expected)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("warning: environment.num_envs: 2 worker processes do not start")


def test_an_error_of_the_configuration_is_the_one_of_a_single_environment(capsys):
    for task, words in (("ToyNoRenderer-v0", "a_renderer is not installed"), ("Wonder-v0", "gym has no .*Wonder-v0")):
        errors = []
        for num_envs in (1, 2):
            with pytest.raises(EnvError, match=words) as caught:
                make_train_env(settings(num_envs, task, from_pixels=True), 0)
            errors.append(str(caught.value))
        assert errors[0] == errors[1]
    assert capsys.readouterr().err == ""


def test_the_evaluation_environment_is_the_same_beside_any_number():
    first, *others = (make_eval_env(settings(number), 5).reset()[0] for number in (1, 2, 8))
    np.testing.assert_array_equal(others, [first, first])
