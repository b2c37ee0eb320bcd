"""One step of an episode, as it is collected and stored. Here the time index is fixed for everything that follows."""

from typing import NamedTuple

import numpy as np

NOTHING = np.zeros(0, np.float32)


class Step(NamedTuple):
    """What arrives together at index t of an episode.

    index          0     1     2     3
    observation   o_0   o_1   o_2   o_3
    action         0    a_1   a_2   a_3    a_t led to o_t: it was chosen having seen o_0 … o_{t-1}
    reward         0    r_1   r_2   r_3    r_t was received on arriving at o_t
    is_first       1     0     0     0
    is_terminal    0     0     0    0/1    1: the task ended here. 0 at the last index: the clock did
    """

    observation: np.ndarray | dict  # uint8 (C, height, width), or float32 (size,), or a dict of both
    action: np.ndarray
    reward: float
    is_first: bool
    is_terminal: bool
    env_steps: int  # simulator steps that the action took, repeats included
    context: np.ndarray = NOTHING  # (F,), the feature of s_{t-1}, from which a_t was chosen, where it is kept
