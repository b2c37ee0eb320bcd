"""Environments of other packages whose episodes follow from their seeds.

Each episode begins with a seed that `np_random` draws. Nothing else is passed on from episode to episode, so a resumed
run continues exactly.
"""

import colorsys
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class SeededEnv(gymnasium.Env):
    """An environment whose episodes follow from their seeds. A subclass has `begin` and `step`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}
    render_mode = "rgb_array"
    max_episode_steps: int

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.begin(int(self.np_random.integers(1, 2**31 - 1))), {}

    def begin(self, seed: int) -> Any:
        """Begin the episode of a seed and return its first observation."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: `np_random`, which is saved by itself, is all the state between two episodes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing, for the same reason."""


class CrafterEnv(SeededEnv):
    """Crafter, as a picture. A death is terminal; after 10,000 steps the clock ends the episode.

    `achievements` says, for each of the 22, whether this episode has unlocked it.
    """

    max_episode_steps = 10_000

    def __init__(self, game: Any, names: Collection[str]) -> None:
        """game: a crafter.Env. names: of the achievements."""
        self.game = game
        keep_order(game._world)
        shape, actions = game.observation_space.shape, game.action_space.n
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(actions)
        self.achievements = dict.fromkeys(sorted(names), False)

    def begin(self, seed: int) -> np.ndarray:
        self.game._seed, self.game._episode = seed, 0  # it computes the seed of the world from both
        self.achievements = dict.fromkeys(self.achievements, False)
        return self.game.reset()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        picture, reward, ended, info = self.game.step(action)
        self.achievements = {name: info["achievements"][name] > 0 for name in self.achievements}
        died = info["discount"] == 0
        return picture, float(reward), died, ended and not died, {}

    def render(self) -> np.ndarray:  # type: ignore[override]
        return self.game.render()


class InOrder(dict[Any, None]):
    """The methods of a set that Crafter calls, iterated in the order of adding: that of a set differs between
    processes."""

    def add(self, thing: Any) -> None:
        """Add a thing that is not in the set."""
        self[thing] = None

    def remove(self, thing: Any) -> None:
        """Remove a thing."""
        del self[thing]


def keep_order(world: Any) -> None:
    """Make the creature that a crafter.engine.World removes follow from the seed: keep creatures in order."""
    reset = world.reset

    def reset_in_order(seed: int | None = None) -> None:
        reset(seed)
        world._chunks = defaultdict(InOrder)

    world.reset = reset_in_order


class MemoryMazeEnv(SeededEnv):
    """A Memory Maze, as a picture whose border has the colour to look for. The clock ends an episode."""

    def __init__(self, task: Callable[..., Any], max_episode_steps: int, side: int) -> None:
        """task: makes the maze of a seed. side: of the picture, in pixels."""
        self.task, self.max_episode_steps, self.side = task, max_episode_steps, side
        self.maze: Any = None
        self.observation_space = spaces.Box(0, 255, (side, side, 3), np.uint8)
        self.action_space = spaces.Discrete(6)

    def begin(self, seed: int) -> np.ndarray:
        self.close()
        # a new maze for each episode: the random state of an old one cannot be saved
        self.maze = self.task(seed=seed, image_only_obs=True, camera_resolution=self.side)
        self.picture = self.maze.reset().observation
        return self.picture

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        step = self.maze.step(action)
        self.picture = step.observation
        terminated = step.last() and step.discount == 0
        return self.picture, float(step.reward), terminated, step.last() and not terminated, {}

    def render(self) -> np.ndarray:  # type: ignore[override]
        return self.picture

    def close(self) -> None:
        if self.maze:
            self.maze.close()


class MetaWorldEnv(SeededEnv):
    """A task of Meta-World with an observed goal, a new one in each episode. The clock ends it."""

    max_episode_steps = 500

    def __init__(self, env: Any) -> None:
        """env: of metaworld.env_dict.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE."""
        self.env = env
        env._freeze_rand_vec, env.seeded_rand_vec = False, True  # a new goal in each episode, from the seed
        self.metadata = {**self.metadata, "render_fps": env.metadata["render_fps"]}
        shape = env.observation_space.shape
        self.observation_space = spaces.Box(-np.inf, np.inf, shape)
        self.action_space = env.action_space

    def begin(self, seed: int) -> np.ndarray:
        self.env.seed(seed)
        return self.env.reset()[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.env.step(action)

    def render(self) -> np.ndarray:  # type: ignore[override]
        return self.env.render()[::-1, ::-1]  # this camera hangs upside down

    def close(self) -> None:
        self.env.close()


class MinAtarEnv(SeededEnv):
    """A game of MinAtar with the actions that it uses: 10x10 places, one bit for each kind of thing; actions stick with
    a probability of 0.1. The clock ends an episode after 10,000 steps."""

    max_episode_steps = 10_000

    def __init__(self, game: Any) -> None:
        """game: a minatar.Environment."""
        self.game = game
        self.actions = game.minimal_action_set()
        height, width, kinds = game.state_shape()
        self.observation_space = spaces.Box(0, 1, (height, width, kinds), np.int8)
        self.action_space = spaces.Discrete(len(self.actions))
        colours = [(0.0, 0.0, 0.0), *(colorsys.hsv_to_rgb(kind / kinds, 0.7, 1) for kind in range(kinds))]
        self.colours = np.array([[round(255 * part) for part in colour] for colour in colours], np.uint8)

    def begin(self, seed: int) -> np.ndarray:
        self.steps, self.game.last_action = 0, 0
        self.game.seed(seed)
        self.game.reset()
        return self.state()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward, ended = self.game.act(self.actions[action])
        self.steps += 1
        truncated = not ended and self.steps == self.max_episode_steps
        return self.state(), float(reward), bool(ended), truncated, {}

    def state(self) -> np.ndarray:
        """Return which kinds of things are at each place: 0 or 1, int8 (height, width, kinds)."""
        return self.game.state().astype(np.int8)

    def render(self) -> np.ndarray:  # type: ignore[override]
        """Return a picture in which each place has 8x8 pixels in the colour of its last kind: uint8 (80, 80, 3)."""
        state = self.state()
        kinds = (state * np.arange(1, state.shape[-1] + 1)).max(-1)
        return self.colours[kinds].repeat(8, 0).repeat(8, 1)
