"""Third-party environments: other random generators, other number types and the old gym API."""

import re
from contextlib import closing
from functools import partial
from types import SimpleNamespace

import gym
import gymnasium
import numpy as np
import pytest
import torch

from dreamer.config.load import load_config
from dreamer.envs import calls, warn
from dreamer.envs.gym_env import GymEnv
from dreamer.envs.make import make_train_env
from dreamer.envs.old_api import adapt_old_api, takes
from dreamer.envs.randomness import ProcessRandomness, can_be_saved
from dreamer.envs.wrappers import Checked
from dreamer.errors import EnvError, EnvFault
from dreamer.training import torch_settings
from dreamer.training.checkpoint import copy_to_cpu
from dreamer.training.collect import run_episodes
from dreamer.training.seeding import seed_everything, seeded_randomness
from tests.envs import toy_foreign, toy_torch
from tests.envs.playing import goes_on, play
from tests.envs.toy import make as make_any

make = partial(make_any, benchmark="gym", from_pixels=False, frame_skip=1)


def make_toy(name, **changes):
    module = "toy_torch" if hasattr(toy_torch, name) else "toy_foreign"
    return make(task_name=f"tests.envs.{module}:{name}-v0", **changes)


@pytest.fixture(autouse=True)
def clear_warnings(monkeypatch):
    monkeypatch.setattr(warn, "_warned", set())


def warnings(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]


# Random numbers

KINDS = ["Legacy", "Pythons", "Unseeded", "Torchs"]


@pytest.mark.parametrize("name", [*KINDS, "Global", "GlobalTorch", "Librarys", "Old"])
def test_seed_determines_all_random_numbers(name):
    def played(seed):
        seed_everything(seed)
        return np.stack([play(env) for env in [make_toy(name, seed=seed)] for _ in range(3)])

    first, again, other = played(3), played(3), played(4)
    assert (first == again).all() and len(np.unique([*first, *other], axis=0)) == 6


@pytest.mark.parametrize("name", [*KINDS, "Old"])
def test_state_of_all_generators_is_restored(name, capsys):
    assert goes_on(*(make_toy(name, seed=seed) for seed in (1, 2)), steps=None)
    assert not any("cannot be saved" in line for line in warnings(capsys))


def test_generator_with_a_fixed_seed_is_not_reseeded(monkeypatch):
    """Its author may have chosen a seed, such as that of a fixed race track."""
    monkeypatch.setattr(toy_foreign.Game, "__init__", lambda self: setattr(self, "random", np.random.default_rng(5)))
    env = make_toy("Unseeded", seed=1)
    expected = np.random.default_rng(5)
    expected.random()
    assert env.unwrapped.game.random.random() == expected.random()


def test_unsavable_random_state_gives_one_warning(capsys, monkeypatch):
    envs = [make_toy("Librarys", seed=seed) for seed in (1, 2)]
    assert not warnings(capsys)
    for env in envs * 2:
        env.load_state_dict(copy_to_cpu(env.state_dict()))
    (line,) = warnings(capsys)
    assert line.startswith(
        "warning: of the environment's state _np_random (Halton) cannot be saved: a run that is resumed"
    )


def test_workers_global_generators_are_seeded_and_restored():
    """Each worker has its own seed, and the state of its global generators is saved."""
    settings = load_config("quick-v3-cartpole").environment | {"benchmark": "gym", "num_envs": 2, "frame_skip": 1}
    settings |= {"task_name": "tests.envs.toy_foreign:Global-v0"}

    def play(env):
        episodes = run_episodes(env, lambda step: np.zeros((2, 1), np.float32), 2)
        return [[step.reward for step in episode] for episode in episodes]

    with closing(make_train_env(settings, 0)) as env:
        first = play(env)
        state = copy_to_cpu(env.state_dict())
        second, third = play(env), play(env)
    with closing(make_train_env(settings, 0)) as env:
        assert env.vector.own_processes and play(env) == first
        play(env)
        env.load_state_dict(state)
        assert [play(env), play(env)] == [second, third]
    assert len(np.unique([*first, *second, *third], axis=0)) == 6


def test_workers_torch_generator_is_seeded_and_restored():
    """This applies once the environment has imported torch."""
    process = ProcessRandomness()
    with seeded_randomness(0):
        process.seed_torch(7)
        first, state, second = torch.rand(3), copy_to_cpu(process.state_dict()), torch.rand(3)
        process.seed_torch(7)
        assert (torch.rand(3) == first).all() and (first != second).any()
        process.load_state_dict(state)
        assert (torch.rand(3) == second).all()


# Numbers


@pytest.mark.parametrize("name, size", [("Tensors", 2), ("Half", 2), ("Sequences", 2 + 5 + 4)])
def test_values_of_torch_and_python_types_are_converted(name, size):
    env = make_toy(name, frame_skip=2)
    for _ in range(2):
        first, _ = env.reset()
        steps = [env.step(env.action_space.sample()) for _ in range(2)]
        assert all(observation in env.observation_space for observation in (first, *(step[0] for step in steps)))
        assert [step[2:4] for step in steps] == [(False, False), (True, False)] and first.shape == (size,)
        if name == "Sequences":
            assert {step[1] for step in steps} == {0.75} and first[2:].tolist() == [0, 1, 0, 0, 1, 0, 1, 0, 1]
        else:
            assert all(np.isfinite(step[1]) and step[1] != 0 for step in steps)


class OnADevice:
    """Like a tensor on a GPU, which NumPy can read only after `cpu()`."""

    def __init__(self, value):
        self.value = value

    def cpu(self):
        return self.value

    def __array__(self, *arguments, **keywords):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


class Unreadable:
    def __array__(self, *arguments, **keywords):
        raise RuntimeError("a fault\nof its own")


@pytest.mark.parametrize("wrap, good", [(OnADevice, True), (lambda value: Unreadable(), False)])
@pytest.mark.parametrize("part", range(4))
def test_values_that_numpy_cannot_read_are_one_line_errors(wrap, good, part, monkeypatch):
    env = make_toy("Legacy")

    def step(action):
        answer = [np.zeros(2), 0.5, True, False, {}]
        answer[part] = wrap(answer[part])
        return tuple(answer)

    monkeypatch.setattr(env.unwrapped, "step", step)
    if good:
        assert env.step(env.action_space.sample())[1:4] == (0.5, True, False)
    else:
        with pytest.raises(EnvError, match="^the environment's step .* gave .*; expected ") as caught:
            env.step(env.action_space.sample())
        assert "\n" not in str(caught.value)


def test_torch_settings_of_an_environment_are_isolated(monkeypatch):
    monkeypatch.setattr(calls, "_context", torch_settings.environment_settings)
    monkeypatch.setattr(torch_settings, "_theirs", None)
    env, before = make_toy("Settings"), torch_settings.current()
    for _ in range(2):
        play(env)
        assert torch_settings.current() == before and torch.zeros(1).device.type == "cpu"
    with pytest.raises(EnvFault, match="AssertionError"):
        monkeypatch.setattr(calls, "_context", calls.nullcontext)
        env.reset()
        env.unwrapped.steps = 1
        env.step(env.action_space.sample())


# The API before gym 0.26


@pytest.mark.parametrize("name, what", [("Old", "reset takes no seed"), ("OldWrapped", "reset takes no seed")])
def test_old_gym_api_is_adapted_with_one_warning(name, what, capsys):
    envs = [make_toy(name, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (play(env) for env in envs)
    assert (first == again).all() and (first != other).any()
    assert [env.reset()[1] for env in envs] == [{}, {}, {}]
    ends = [envs[0].step(np.float32([0]))[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(True, False)]
    (line,) = warnings(capsys)
    assert re.fullmatch(rf"warning: environment.task_name: '.*{name}-v0' has the API of before .*\({what}\).*", line)


def test_old_time_limit_truncates(capsys):
    """In this API version reset takes a seed, but no options, and returns only the observation."""
    env = make_toy("Seeded")
    assert env.reset(seed=3, options=None)[0].shape == (2,)
    ends = [env.step(np.float32([0]))[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)] and len(warnings(capsys)) == 1


def test_old_api_works_under_gymnasium(capsys):
    gymnasium = pytest.importorskip("gymnasium")

    class Old(gymnasium.Env):
        action_space, observation_space = gymnasium.spaces.Discrete(2), gymnasium.spaces.Box(-9.0, 9.0, (1,))

        def seed(self, seed):
            self.random = np.random.RandomState(seed)

        def reset(self):
            return self.random.rand(1)

        def step(self, action):
            return self.random.rand(1), 1.0, True, {}

    gymnasium.register("Old-v0", Old, max_episode_steps=3)
    try:
        envs = [make(benchmark="gymnasium", task_name="Old-v0", seed=seed) for seed in (1, 2)]
        assert goes_on(*envs) and len(warnings(capsys)) == 1
    finally:
        gymnasium.registry.pop("Old-v0")


def test_error_in_an_environments_load_state_dict_is_an_env_fault(monkeypatch):
    """The checkpoint is not reported as damaged."""
    env = make_toy("Legacy")
    monkeypatch.setattr(toy_foreign.Legacy, "state_dict", lambda self: {"kept": 1}, raising=False)
    monkeypatch.setattr(toy_foreign.Legacy, "load_state_dict", lambda self, state: state["lost"], raising=False)
    with pytest.raises(EnvFault, match="^the environment's load_state_dict raised KeyError: 'lost'$"):
        env.load_state_dict(env.state_dict())


def test_step_of_neither_api_is_refused():
    class Neither(toy_foreign.Walk):
        def step(self, action):
            return super().step(action)[:3]

    env = Checked(GymEnv(adapt_old_api(gym.wrappers.TimeLimit(Neither(), 3), "Neither")))
    env.reset(seed=0)
    expected = r"the environment's step \(episode 0, env step 1\) gave 3 values; expected \(observation, reward, .*\)"
    with pytest.raises(EnvError, match=expected):
        env.step(np.float32([0]))


class OfSwig(type):
    """Metaclass of SWIG types, such as Box2D's, whose `__module__` raises."""

    @property
    def __module__(cls):
        raise AttributeError("__module__")


def test_can_be_saved_is_false_for_types_without_a_module():
    assert not can_be_saved(OfSwig("World", (), {})())


def test_takes_finds_a_seed_argument_through_wrappers():
    class Keeps(gymnasium.Env):
        def __init__(self):
            self.env = SimpleNamespace(reset=lambda: None)

        def reset(self, *, seed=None, options=None):
            return None, {}

    assert takes(Keeps(), "seed") and takes(gymnasium.Wrapper(Keeps()), "seed")
    Keeps.reset = lambda self: None
    assert not takes(gymnasium.Wrapper(Keeps()), "seed")
