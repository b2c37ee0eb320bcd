"""An environment in which a process that evaluates stands still for as long as the working directory holds `hold`."""

import multiprocessing
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces


class Held(gymnasium.Env):
    """Noise to be seen; a reward for the action, and noise."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)
    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.np_random.uniform(-1, 1, 2), {}

    def step(self, action):
        while "Spawn" in multiprocessing.current_process().name and Path("hold").exists():
            time.sleep(0.02)
        self.count += 1
        observation = self.np_random.uniform(-1, 1, 2)
        return observation, float(action[0] + observation[0]), False, self.count == 10, {}


gymnasium.register("Held-v0", entry_point=Held, max_episode_steps=10)
