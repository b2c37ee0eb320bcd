"""Tiny environments registered under several ids, and `make`, which builds any environment from a configuration."""

import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamer.config.load import load_config
from dreamer.envs.make import make_env

FRAME = np.zeros((30, 40, 3), np.uint8)  # red grows to the right, green is even, blue grows downwards
FRAME[..., 0] = np.linspace(0, 255, 40)[None, :]
FRAME[..., 1] = 100
FRAME[..., 2] = np.linspace(0, 255, 30)[:, None]

ACTIONS = spaces.Box(np.array([-2, 0], np.float32), np.array([4, 10], np.float32))


class Toy(gymnasium.Env):
    """Rewards 1, 2, 3, …; terminated after `length` steps. Keeps the actions and the last observation."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, action_space=ACTIONS, observation_space=None, length=5, render_mode=None, renders=True):
        self.action_space = action_space
        self.observation_space = observation_space or spaces.Box(-1.0, 1.0, (3,), np.float64)
        self.max_episode_steps, self.render_mode, self.renders = length, render_mode, renders

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.actions = []
        return self._observe(), {}

    def step(self, action):
        self.actions.append(action)
        steps = len(self.actions)
        return self._observe(), float(steps), steps == self.max_episode_steps, False, {"step": steps}

    def render(self):
        if not self.renders:
            raise gymnasium.error.DependencyNotInstalled("a_renderer is not installed")
        return FRAME

    def _observe(self):
        self.last_observation = self.observation_space.sample()
        return self.last_observation


def _register(name, entry_point=Toy, max_episode_steps=None, **keywords):
    gymnasium.register(name, entry_point=entry_point, max_episode_steps=max_episode_steps, kwargs=keywords)


_register("Toy-v0")
_register("ToyNoRenderer-v0", renders=False)
_register("ToyDiscrete-v0", action_space=spaces.Discrete(3, start=5))
_register("ToyUnbounded-v0", action_space=spaces.Box(-np.inf, np.inf, (2,)))
_register("ToyInteger-v0", action_space=spaces.Box(0, 3, (2,), np.int64))
DICT = spaces.Dict({"position": spaces.Box(-1.0, 1.0, (2, 2)), "mode": spaces.Discrete(3)})
_register("ToyDict-v0", observation_space=DICT)
PICTURES = {"front": spaces.Box(0, 255, (30, 40, 3), np.uint8), "back": spaces.Box(0, 255, (18, 16, 1), np.uint8)}
OTHERS = {"position": spaces.Box(-1.0, 1.0, (2, 2)), "mode": spaces.Discrete(3), "lamps": spaces.MultiBinary(2)}
_register("ToyMixed-v0", observation_space=spaces.Dict(PICTURES | OTHERS))
ARM = spaces.Tuple([spaces.Box(-2.0, 4.0, (1, 2)), spaces.MultiBinary(2)])
HAND = spaces.Dict({"arm": ARM, "mode": spaces.Discrete(3, start=1)})
_register("ToyPictures-v0", action_space=HAND, observation_space=spaces.Dict(PICTURES))
_register("ToyPicture-v0", observation_space=PICTURES["front"])


class Wander(gymnasium.Env):
    """A random walk, moved by the action; terminated after a random number of steps, or truncated after six.

    Raises in step `fails` of an episode, and observes NaN from step `lost` on, if they are given.
    """

    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, fails=None, lost=None):
        self.fails, self.lost = fails, lost

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.place, self.length = 0, self.np_random.normal(), self.np_random.integers(2, 10)
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        if self.steps == self.fails:
            raise ZeroDivisionError("a fault\nof its own")
        self.place += np.nan if self.steps == self.lost else float(action[0]) + self.np_random.normal()
        return (
            self._observe(),
            self.place,
            self.steps == self.length,
            False,
            {"note": lambda: "nothing that can be sent"},
        )

    def _observe(self):
        return np.array([self.place, self.steps], np.float32)


_register("Wander-v0", Wander, 6)
_register("WanderFails-v0", Wander, 6, fails=4)
_register("WanderIsLost-v0", Wander, 6, lost=4)


def make(config="dreamer", seed=0, **changes):
    """Return the environment of a configuration, with changed settings."""
    others = ("num_envs", "pixel_norm", "vectorized")
    settings = {key: value for key, value in load_config(config).environment.items() if key not in others}
    return make_env(**{**settings, "seed": seed, **changes})


def make_toy(name="Toy-v0", **changes):
    return make(**{"benchmark": "gymnasium", "task_name": f"tests.envs.toy:{name}", "from_pixels": False, **changes})


def run_python(*arguments, **environment):
    """Run Python in a child process. Return the finished process with its output."""
    folder, environment = Path(__file__).parents[2], {**os.environ, **environment}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
