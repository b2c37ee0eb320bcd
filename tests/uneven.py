"""An environment whose episodes differ in length, and a program that is killed while it learns."""

import os
import signal
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces


class Uneven(gymnasium.Env):
    """Noise to be seen; a reward for the action; from 5 to 24 steps, after which the task has ended."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)
    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(5, 25))
        return self.np_random.uniform(-1, 1, 2), {}

    def step(self, action):
        self.left -= 1
        observation = self.np_random.uniform(-1, 1, 2)
        return observation, float(action[0] + observation[0]), self.left == 0, False, {}


gymnasium.register("Uneven-v0", entry_point=Uneven)


def kill_at(write, moments):
    """A function in place of `write_durably` that, in the rank and before the checkpoint of one of the moments,
    (rank, iteration), kills the process, once each."""

    def killing(path, content):
        for rank, iteration in moments:
            mark = Path(f"killed-{rank}-{iteration}")
            mine = os.environ["RANK"] == str(rank) and path.name == f"checkpoint-{iteration:06}.pt"
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
    moments = [moment.split(":") for moment in killed.split(",")]
    checkpoint.write_durably = kill_at(checkpoint.write_durably, [(int(r), int(i)) for r, i in moments])
    sys.exit(main.main(arguments))
