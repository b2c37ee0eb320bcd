"""Environments that wait while the working directory holds a file named `hold`, so that a test can act meanwhile."""

import multiprocessing
import os
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import PendulumEnv


def wait_while_held():
    """Wait until the working directory holds no file named `hold`. While waiting, there is a file `waiting-PID`."""
    mark = Path(f"waiting-{os.getpid()}")
    while Path("hold").exists():
        mark.touch()
        time.sleep(0.02)
    mark.unlink(missing_ok=True)


class PausingEvaluation(gymnasium.Env):
    """Observe noise; the reward is the action plus noise; an episode has ten steps. It waits only in a process that
    multiprocessing spawned, so evaluations wait and training does not."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)
    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.np_random.uniform(-1, 1, 2), {}

    def step(self, action):
        if "Spawn" in multiprocessing.current_process().name:
            wait_while_held()
        self.count += 1
        observation = self.np_random.uniform(-1, 1, 2)
        return observation, float(action[0] + observation[0]), False, self.count == 10, {}


class PausingPendulum(PendulumEnv):
    """Wait before the sixth episode. The episode in which the program tries the environment does not count."""

    episodes = 0

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        if self.episodes > 6:
            wait_while_held()
        return super().reset(seed=seed)


class UnevenEpisodes(gymnasium.Env):
    """Observe noise; the reward is the action plus noise; an episode terminates after 5 to 24 steps. Wait before the
    sixth episode, as `PausingPendulum` does."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episodes += 1
        if self.episodes > 6:
            wait_while_held()
        self.steps_left = int(self.np_random.integers(5, 25))
        return self.np_random.uniform(-1, 1, 2), {}

    def step(self, action):
        self.steps_left -= 1
        observation = self.np_random.uniform(-1, 1, 2)
        return observation, float(action[0] + observation[0]), self.steps_left == 0, False, {}


gymnasium.register("PausingEvaluation-v0", entry_point=PausingEvaluation, max_episode_steps=10)
gymnasium.register("PausingPendulum-v0", entry_point=PausingPendulum, max_episode_steps=200)
gymnasium.register("UnevenEpisodes-v0", entry_point=UnevenEpisodes)
