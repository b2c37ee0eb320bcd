"""A tiny environment under several ids of gym, and `make`, which builds any environment from a configuration."""

import gym
import numpy as np
from gym import spaces

from dreamer.envs.envs import make_env
from dreamer.utils.config import load_config

FRAME = np.zeros((30, 40, 3), np.uint8)  # red grows to the right, green is even, blue grows downwards
FRAME[..., 0] = np.linspace(0, 255, 40)[None, :]
FRAME[..., 1] = 100
FRAME[..., 2] = np.linspace(0, 255, 30)[:, None]

ACTIONS = spaces.Box(np.array([-2, 0], np.float32), np.array([4, 10], np.float32))


class Toy(gym.Env):
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
            raise gym.error.DependencyNotInstalled("a_renderer is not installed")
        return FRAME

    def _observe(self):
        self.last_observation = self.observation_space.sample()
        return self.last_observation


def _register(name, **keywords):
    gym.register(name, entry_point=Toy, kwargs=keywords)


_register("Toy-v0")
_register("ToyNoRenderer-v0", renders=False)
_register("ToyDiscrete-v0", action_space=spaces.Discrete(3, start=5))
_register("ToyUnbounded-v0", action_space=spaces.Box(-np.inf, np.inf, (2,)))
_register("ToyMultiDiscrete-v0", action_space=spaces.MultiDiscrete([2, 3]))
_register("ToyInteger-v0", action_space=spaces.Box(0, 3, (2,), np.int64))
_register("ToyMatrix-v0", action_space=spaces.Box(-1.0, 1.0, (2, 2)))
_register(
    "ToyDict-v0",
    observation_space=spaces.Dict({"position": spaces.Box(-1.0, 1.0, (2, 2)), "mode": spaces.Discrete(3)}),
)


def make(config="dreamer", seed=0, **changes):
    """The environment of a configuration, with changes."""
    settings = {key: value for key, value in load_config(config).environment.items() if key != "pixel_norm"}
    return make_env(**{**settings, "seed": seed, **changes})


def make_toy(name="Toy-v0", **changes):
    return make(**{"benchmark": "gym", "task_name": f"tests.envs.toy:{name}", "from_pixels": False, **changes})
