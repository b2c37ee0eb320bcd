"""An environment whose episodes differ in length, which can be held, and a program that is killed while it learns."""

import os
import signal
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces


class Uneven(gymnasium.Env):
    """Noise to be seen; a reward for the action; from 5 to 24 steps, after which the task has ended.

    It holds before its sixth episode, not counting the one in which it is tried, for as long as the working directory
    holds `hold`.
    """

    action_space = spaces.Box(-1, 1, (1,), np.float32)
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episodes += 1
        while self.episodes > 6 and Path("hold").exists():
            time.sleep(0.02)
        self.left = int(self.np_random.integers(5, 25))
        return self.np_random.uniform(-1, 1, 2), {}

    def step(self, action):
        self.left -= 1
        observation = self.np_random.uniform(-1, 1, 2)
        return observation, float(action[0] + observation[0]), self.left == 0, False, {}


gymnasium.register("Uneven-v0", entry_point=Uneven)


def kill_at(write, rank, iteration):
    """A function in place of `write_durably` that kills the process of a rank before the checkpoint of an iteration,
    once."""

    def killing(path, content):
        mark = Path(f"killed-{rank}-{iteration}")
        mine = os.environ["RANK"] == rank and path.name == f"checkpoint-{int(iteration):06}.pt"
        if mine and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    return killing


if __name__ == "__main__":
    import sys

    import main
    from dreamer.training import checkpoint

    killed, *arguments = sys.argv[1:]
    checkpoint.write_durably = kill_at(checkpoint.write_durably, *killed.split(":"))
    sys.exit(main.main(arguments))
