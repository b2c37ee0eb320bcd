"""Environments of gym, used through their adapter."""

import gym
import numpy as np
import pytest
from gym import spaces

from dreamer.envs.actions import classes_of
from dreamer.errors import EnvError
from tests.envs.toy import make

PARTS = [  # not in alphabetical order
    ("position", spaces.Box(-1.0, 1.0, (2, 2), np.float64)),
    ("words", spaces.Text(5)),
    ("inner", spaces.Dict([("z", spaces.Discrete(3, start=2)), ("a", spaces.MultiBinary(2))])),
    ("dials", spaces.Tuple([spaces.MultiDiscrete([2, 3]), spaces.Box(0, 5, (1,), np.int32)])),
]


class Gyms(gym.Env):
    """Observes a part of every kind; its actions begin at 4."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = spaces.Dict(PARTS)
    action_space = spaces.Discrete(3, start=4)

    def __init__(self, missing=False, render_mode=None):
        self.missing, self.render_mode = missing, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.actions = []
        if self.missing:
            raise gym.error.DependencyNotInstalled("a_simulator\nis not installed")
        return self.observe(), {}

    def step(self, action):
        self.actions.append(action)
        return self.observe(), 1.0, False, False, {}

    def observe(self):
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.seen = self.observation_space.sample()
        return self.seen

    def render(self):
        return np.full((16, 20, 3), 7, np.uint8)


gym.register("Gyms-v0", Gyms, max_episode_steps=6)


def make_gyms(**changes):
    return make(benchmark="gym", task_name="Gyms-v0", **{"from_pixels": False, "frame_skip": 2, **changes})


def test_vectors_have_gyms_order_and_omit_texts():
    env = make_gyms()
    observation, _ = env.reset()
    observed = env.unwrapped.seen
    observed = {key: part for key, part in observed.items() if key != "words"}
    space = spaces.Dict([(key, part) for key, part in PARTS if key != "words"])
    np.testing.assert_array_equal(observation, spaces.flatten(space, observed).astype(np.float32))
    assert [line.split()[0] for line in env.description] == ["numbers", "left"] and "words" in env.description[1]


def test_discrete_start_and_time_limit_are_respected():
    env = make_gyms()
    assert classes_of(env.action_space) == (3,) and isinstance(env.unwrapped, Gyms) and env.max_agent_steps == 3
    steps = [env.step(action) for action in np.eye(3, dtype=np.float32)]
    assert env.unwrapped.actions == [4, 4, 5, 5, 6, 6] and all(type(each) is int for each in env.unwrapped.actions)
    assert [step[1:4] for step in steps] == [(2.0, False, False)] * 2 + [(2.0, False, True)]


def test_nested_action_spaces(monkeypatch):
    parts = {"buttons": spaces.MultiBinary(2), "pair": spaces.Tuple([spaces.Discrete(2), spaces.MultiDiscrete([2, 3])])}
    monkeypatch.setattr(Gyms, "action_space", spaces.Dict(parts | {"push": spaces.Box(0, 2, (1,))}))
    env = make_gyms()
    env.reset()
    assert classes_of(env.action_space) == (2, 2, 2, 2, 3, 0)
    env.step(env.action_space.sample())
    assert all(action in Gyms.action_space for action in env.unwrapped.actions)


def test_pixels_come_from_render():
    env = make_gyms(from_pixels=True, height=16, width=20)
    assert (env.reset()[0] == 7).all()


def test_gym_errors_are_one_line():
    with pytest.raises(EnvError, match="^environment.task_name: 'Gyms-v0' does not run: a_simulator is not installed$"):
        make_gyms(kwargs={"missing": True})
