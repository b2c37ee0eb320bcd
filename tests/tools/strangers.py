"""Third-party environments for the tests of `dreamer check`, each with a different mistake."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Reach(gymnasium.Env):
    """Move along a line to the middle, within 40 steps. Observes the place and its square. Has no mistake."""

    observation_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    metadata = {"render_modes": ["rgb_array"]}
    length, ends = 40, (False, True)  # terminated and truncated at the last step

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.place = 0, self.np_random.uniform(-1, 1)
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        self.place = float(np.clip(self.place + 0.2 * float(np.ravel(action)[0]), -2, 2))
        ends = self.ends if self.count == self.length else (False, False)
        return self.observe(), self.reward(), *ends, {}

    def observe(self):
        return np.array([self.place, self.place**2 / 2], np.float32)

    def reward(self):
        return 1.0 - abs(self.place)

    def render(self):
        frame = np.zeros((16, 16, 3), np.uint8)
        frame[:, round(8 + 3 * self.place)] = 255
        return frame


class Unbounded(Reach):
    """Has unbounded actions and rewards of 10,000."""

    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def reward(self):
        return 1e4 * super().reward()


class Large(Unbounded):
    """`Unbounded` with the actions that the advice suggests."""

    action_space = Reach.action_space


class Reused(Reach):
    """Returns the same array each time, with values outside its space, and NaN after `lost` steps in all."""

    observation_space = spaces.Box(-0.01, 0.01, (2,), np.float32)
    steps, lost = 0, 70

    def observe(self):
        if self.steps == 0:
            self.array = np.zeros(2, np.float32)
        self.steps += 1
        self.array[:] = np.nan if self.steps > self.lost else super().observe()
        return self.array


class Column(Reach):
    """Observations have another shape than their space. It also prints."""

    def observe(self):
        print("observed")
        return super().observe()[:, None]


class Unseeded(Reach):
    """Ignores the seed."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.random.default_rng().uniform(-1, 1)
        return self.observe(), {}


class Stack(Reach):
    """Observes float images in [0, 1]; reports its time limit as a termination."""

    observation_space = spaces.Box(0.0, 1.0, (4, 24, 24), np.float32)
    action_space = spaces.Discrete(2)
    ends = True, False

    def reset(self, *, seed=None, options=None):
        self.frames = np.zeros((4, 24, 24), np.float32)
        return super().reset(seed=seed)

    def step(self, action):
        return super().step([2 * int(action) - 1])

    def observe(self):
        self.frames = np.roll(self.frames, 1, 0)
        column = round(11.5 + 5 * self.place)
        self.frames[0] = 0
        self.frames[0, 8:16, max(0, column - 1) : column + 2] = 1
        return self.frames.copy()


class Silent(Reach):
    """All rewards are zero."""

    def reward(self):
        return 0.0


class Endless(Reach):
    length = 10**9


class Broken(Reach):
    """Raises in the 30th step of an episode."""

    def reward(self):
        return 1 / (30 - self.count)


class Drawn(Reach):
    """Its observations are unusable, but it renders."""

    observation_space = spaces.Sequence(spaces.Discrete(2))

    def observe(self):
        return (0, 1)


class Faint(Reach):
    """Has tiny rewards, actions up to a million, and an observed number that never changes."""

    action_space = spaces.Box(-1e6, 1e6, (1,), np.float32)
    observation_space = spaces.Dict(place=spaces.Box(-2.0, 2.0, (1,)), one=spaces.Discrete(2))

    def observe(self):
        return {"place": np.array([self.place], np.float32), "one": 1}

    def reward(self):
        return 1e-5


class Remembers(Reach):
    """Alternates its start between episodes, whatever the seed."""

    side = 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.side = -self.side
        self.place = self.side * abs(self.place)
        return self.observe(), {}


class Ends(Reach):
    """Terminates in the middle."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or abs(self.place) < 0.05, truncated, info


def several(num_envs=2):
    """Return a vector environment of several lines."""
    return gymnasium.vector.SyncVectorEnv([Reach] * num_envs)
