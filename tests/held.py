"""Environments that stand still for as long as the working directory holds `hold`, so that a test can look and stop."""

import multiprocessing
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import PendulumEnv


class Held(gymnasium.Env):
    """Noise to be seen; a reward for the action, and noise. It holds a process that evaluates."""

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


class HeldPendulum(PendulumEnv):
    """Holds before its sixth episode, not counting the one in which it is tried."""

    episodes = 0

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        while self.episodes > 6 and Path("hold").exists():
            time.sleep(0.02)
        return super().reset(seed=seed)


gymnasium.register("Held-v0", entry_point=Held, max_episode_steps=10)
gymnasium.register("HeldPendulum-v0", entry_point=HeldPendulum, max_episode_steps=200)
