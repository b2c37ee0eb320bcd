"""One episode, as a sequence of steps. Here the time index is fixed for everything that follows."""

from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    """What arrives together at index t of an episode.

    index          0     1     2     3
    observation   o_0   o_1   o_2   o_3
    action         0    a_1   a_2   a_3    a_t led to o_t: it was chosen having seen o_0 … o_{t-1}
    reward         0    r_1   r_2   r_3    r_t was received on arriving at o_t
    is_first       1     0     0     0
    is_terminal    0     0     0    0/1    1: the task ended here. 0 at the last index: the clock did
    """

    observation: np.ndarray
    action: np.ndarray
    reward: float
    is_first: bool
    is_terminal: bool
    env_steps: int  # simulator steps that the action took, repeats included


def run_episode(env, policy):
    """Play one episode and yield its steps; `policy(step)` gives the action that leaves the step.

    Episode length in agent steps: the number of yielded steps less one.
    """
    observation, _ = env.reset()
    step = Step(observation, np.zeros(env.action_space.shape, np.float32), 0.0, True, False, 0)
    yield step
    ended = False
    while not ended:
        action = policy(step)
        observation, reward, terminated, truncated, info = env.step(action)
        step = Step(observation, action, float(reward), False, terminated, info["env_steps"])
        yield step
        ended = terminated or truncated
