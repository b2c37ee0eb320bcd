"""Third-party environments with other random generators, number types, APIs and errors."""

import random
from decimal import Decimal
from fractions import Fraction

import gym
import numpy as np
from gym import spaces


class Walk(gym.Env):
    """A random walk of four steps; `draw` gives its random numbers."""

    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.begin(seed)
        self.steps, self.place = 0, self.draw()
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        self.place += self.draw() + float(action[0])
        return self.observe(), self.place, self.steps == 4, False, {}

    def observe(self):
        return np.array([self.place, self.steps], np.float32)

    def begin(self, seed):
        super().reset(seed=seed)

    def draw(self):
        return self.np_random.random()


# Random numbers


class Legacy(Walk):
    """Uses NumPy's RandomState as `np_random`."""

    def begin(self, seed):
        if seed is not None:
            self.np_random = np.random.RandomState(seed)

    def draw(self):
        return self.np_random.rand()


class Pythons(Walk):
    def begin(self, seed):
        if seed is not None:
            self.np_random = random.Random(seed)


class Unseeded(Walk):
    """Its generators ignore the seed; one belongs to a nested object."""

    def __init__(self):
        self.rng, self.old, self.game = random.Random(), np.random.RandomState(), Game()
        self.observation_space = spaces.Box(-9.0, 9.0, (2,))

    def begin(self, seed):
        return

    def draw(self):
        own = self.np_random.random() + self.observation_space.sample()[0]
        return own + self.rng.random() + self.old.rand() + self.game.random.random()


class Game:
    def __init__(self):
        self.random = np.random.default_rng()


class Global(Walk):
    """Draws from the global generators of Python and NumPy."""

    def begin(self, seed):
        return

    def draw(self):
        return random.random() + np.random.rand()


class Halton:
    """A library's own generator of pseudo-random numbers."""

    def __init__(self, seed):
        self.__state = seed % 1000

    def random(self):
        self.__state += 1
        return (self.__state * 0.6180339887) % 1


class Librarys(Walk):
    def begin(self, seed):
        if seed is not None:
            self.np_random = Halton(seed)


# Numbers


class Sequences(Walk):
    """Observes lists; its rewards are Fractions and Decimals."""

    observation_space = spaces.Dict(
        place=spaces.Box(-np.inf, np.inf, (2,)),
        dials=spaces.MultiDiscrete([2, 3]),
        pair=spaces.Tuple([spaces.Discrete(2), spaces.MultiBinary(2)]),
    )

    def observe(self):
        return {"place": [self.place, self.steps], "dials": [1, 2], "pair": [1, [0, 1]]}

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, Fraction(1, 4) if self.steps % 2 else Decimal("0.5"), *rest


# The API of before 0.26


class Old(Walk):
    """Has the old API with `seed`, and draws from NumPy's RandomState."""

    def seed(self, seed=None):
        self.random = np.random.RandomState(seed)
        return [seed]

    def reset(self):
        return super().reset()[0]

    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, info

    def begin(self, seed):
        return

    def draw(self):
        return self.random.rand()


class OldWrapper(gym.Wrapper):
    """A wrapper as in packages of that time."""

    def step(self, action):
        observation, reward, done, info = self.env.step(action)
        return observation, 2 * reward, done, info


class Seeded(Walk):
    """Its reset takes a seed and returns only the observation; it ends by its own time limit."""

    def reset(self, seed=None):
        return super().reset(seed=seed)[0]

    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, info | {"TimeLimit.truncated": terminated}


for kind in (Legacy, Pythons, Unseeded, Global, Librarys, Sequences, Old, Seeded):
    gym.register(f"{kind.__name__}-v0", entry_point=kind, max_episode_steps=20)
gym.register("OldWrapped-v0", entry_point=lambda: OldWrapper(Old()), max_episode_steps=20)
