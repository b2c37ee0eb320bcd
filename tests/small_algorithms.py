"""Small algorithms of all three versions, and random batches without a replay."""

from types import SimpleNamespace

import numpy as np
import torch
from gymnasium import spaces

from dreamer.algorithms.dreamer_v2 import DreamerV2
from dreamer.build import build_algorithm
from dreamer.config.load import load_config
from dreamer.envs.actions import ActionParts
from dreamer.replay.step import Batch
from tests.toys import SMALL

NAMES = {1: "dreamer", 2: "dreamer-v2", 3: "dreamer-v3"}
SIZES = ["classes=4", "encoder.depth=2", "decoder.depth=2"]  # besides SMALL
VECTOR, PIXELS = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(0, 255, (3, 64, 64), np.uint8)
MIXED = ActionParts([3, 0, 0, 2, 2])


def make(version, *overrides, observations=VECTOR, actions=2, discrete=False, seed=0):
    """Return a small algorithm.

    overrides: as on the command line, without "parameters.dreamer.". actions: their number, or the action space.
    """
    if isinstance(actions, int):
        actions = ActionParts([actions]) if discrete else spaces.Box(-1, 1, (actions,), np.float32)
    overrides = [f"parameters.dreamer.{override}" for override in (*SIZES, *overrides)]
    env = SimpleNamespace(observation_space=observations, action_space=actions)
    torch.manual_seed(seed)
    return build_algorithm(load_config(NAMES[version], SMALL + overrides), env, torch.device("cpu"))


def behavior_losses(algorithm, batch, posterior, seed=0):
    """Return the result of the version's `behavior_losses` for imagination from `posterior`."""
    torch.manual_seed(seed)
    start = posterior.flatten(), batch.is_terminal.flatten()
    own = {"start_has_reward": True} if isinstance(algorithm, DreamerV2) else {}
    return algorithm.behavior_losses(algorithm.actor_critic, *start, algorithm.predicted_reward, **own)


def one_hot(part, group):
    """Return discrete actions as one-hot vectors of each part's largest entry, and continuous ones unchanged."""
    if not group.classes:
        return part
    return torch.eye(group.classes)[part.unflatten(-1, (group.parts, -1)).argmax(-1)].flatten(-2)


def windows(algorithm, seed=0, batch_size=4, batch_length=6, observations=VECTOR):
    """Return a random batch with a terminated episode, a truncated one, and one that begins with its window."""
    generator = torch.Generator().manual_seed(seed)
    shape = batch_size, batch_length
    if observations is PIXELS:
        seen = torch.randint(256, (*shape, *PIXELS.shape), generator=generator, dtype=torch.uint8)
    else:
        seen = torch.randn(*shape, *observations.shape, generator=generator)
    groups = algorithm.actor.groups
    action = torch.rand(*shape, algorithm.actor.action_size, generator=generator) * 2 - 1
    parts = [
        one_hot(part, group) for part, group in zip(action.split([g.size for g in groups], -1), groups, strict=True)
    ]
    action = torch.cat(parts, -1)
    is_first, is_terminal = torch.zeros(2, *shape)
    is_first[0, 0] = is_first[1, 3] = is_first[2, 2] = 1
    is_terminal[1, 2] = is_terminal[3, 5] = 1
    return Batch(
        seen, action, torch.randn(shape, generator=generator), is_first, is_terminal, torch.zeros(len(seen), 0)
    )
