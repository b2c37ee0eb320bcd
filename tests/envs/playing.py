"""Episodes of random actions, and a check that an environment can be restored from a saved state."""

import io
from itertools import islice

import numpy as np
import torch

from dreamer.training.checkpoint import copy_to_cpu
from dreamer.training.collect import run_episode


def random_episode(env):
    return run_episode(env, lambda step: env.action_space.sample())


def play(env, steps=None):
    """Play an episode, or its first steps. Return observations, actions and rewards in one array."""
    parts = [(step.observation.ravel(), step.action, [step.reward]) for step in islice(random_episode(env), steps)]
    return np.concatenate(sum(parts, ()))


def goes_on(env, fresh, steps=4):
    """Return whether another environment, `fresh`, plays the same after it has loaded this one's state from a file.

    steps: played in each episode; None: whole episodes, and `fresh` has played none before.
    """
    for _ in range(2):
        play(env, steps)
    file = io.BytesIO()
    torch.save(copy_to_cpu(env.state_dict()), file)
    expected = [play(env, steps) for _ in range(3)]
    assert not np.array_equal(expected[0], expected[1])
    assert steps is None or not np.array_equal(play(fresh, steps), expected[0])
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return all(np.array_equal(play(fresh, steps), each) for each in expected)
