"""A small environment of gymnasium for compare_commits.py. It shows a dictionary: a picture, a vector, a number."""

import gymnasium
import numpy as np
from gymnasium import spaces


class ToyDictionary(gymnasium.Env):
    """A point that the actions move left and right. It is rewarded for the middle; at the border the episode ends."""

    observation_space = spaces.Dict(
        picture=spaces.Box(0, 255, (16, 16, 3), np.uint8),
        speed=spaces.Box(-1.0, 1.0, (2,), np.float32),
        place=spaces.Discrete(16),
    )
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(5, 11))
        return self.observe(move=0), {}

    def step(self, action):
        move = int(action) - 1
        self.place += move
        at_border = self.place in (0, 15)
        return self.observe(move), 1.0 - abs(self.place - 7.5) / 8, at_border, False, {}

    def observe(self, move):
        """Return the observation after a move of -1, 0 or 1. One of the vector's two numbers is noise."""
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[:, self.place] = 255
        speed = np.float32([move, self.np_random.uniform(-1, 1)])
        return {"picture": picture, "speed": speed, "place": self.place}


gymnasium.register("ToyDictionary-v0", ToyDictionary, max_episode_steps=40)
