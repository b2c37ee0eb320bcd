"""Conversion between an agent's encoded actions and an environment's own."""

import numpy as np
import pytest
from gymnasium import spaces

from dreamer.envs.actions import ActionParts, AgentAction
from dreamer.envs.numeric import as_arrays
from tests.envs.toy import Toy

ARM = spaces.Tuple([spaces.Box(np.float32([[0, -2]]), np.float32([[1, 6]])), spaces.MultiBinary((1, 2))])
BUTTONS = spaces.MultiDiscrete([[2, 3]], start=[[0, 5]])
EVERYTHING = spaces.Dict({"wait": spaces.Discrete(2, start=7), "buttons": BUTTONS, "arm": ARM})


def wrap(space):
    env = AgentAction(Toy(space), "Toy")
    env.reset()
    return env


def test_one_hot_samples_are_seeded_and_uniform():
    def samples(seed):
        space = ActionParts([3])
        space.seed(seed)
        drawn = np.stack([space.sample() for _ in range(1500)])
        assert drawn[0] in space and (np.sort(drawn) == [0, 0, 1]).all()
        return drawn

    samples_of_seed_7 = samples(7)
    np.testing.assert_array_equal(samples_of_seed_7, samples(7))
    np.testing.assert_allclose(samples_of_seed_7.mean(0), 1 / 3, atol=0.06)  # five standard deviations
    assert (samples(8) != samples_of_seed_7).any()


@pytest.mark.parametrize("start", [0, 5])
def test_one_hot_action_becomes_the_index(start):
    env = AgentAction(Toy(spaces.Discrete(3, start=start)), "Toy")
    env.reset()
    assert env.action_space.shape == (3,)
    for row in np.eye(3, dtype=np.float32):
        env.step(row)
    assert env.unwrapped.actions == [start, start + 1, start + 2]
    assert all(action in env.unwrapped.action_space for action in env.unwrapped.actions)


def test_are_one_hot_checks_each_part_that_has_classes():
    space = ActionParts([2, 0, 3])
    one_hot = np.float32([[[0, 1, 0.3, 0, 0, 1]], [[1, 0, -1, 1, 0, 0]]])
    assert (
        space.are_one_hot(one_hot) and not space.are_one_hot(one_hot[..., ::-1]) and not space.are_one_hot(one_hot / 2)
    )


def test_parts_are_encoded_in_the_order_of_the_space():
    """arm: two numbers, two one-hot of 2; buttons: one-hot of 2 and of 3; wait: one-hot of 2."""
    env = wrap(EVERYTHING)
    assert env.action_space.classes == (0, 0, 2, 2, 2, 3, 2) and env.action_space.shape == (13,)
    encoded = np.float32([-1, 0.5, *(0, 1), *(1, 0), *(1, 0), *(0, 0, 1), *(0, 1)])
    env_action = env.action(encoded)
    assert env_action["wait"] == 8 and type(env_action["wait"]) is int and env_action["buttons"].tolist() == [[0, 7]]
    assert env_action["arm"][0].tolist() == [[0, 4]] and env_action["arm"][1].tolist() == [[1, 0]]
    np.testing.assert_array_equal(env.encode(as_arrays(env_action, EVERYTHING)), encoded)


@pytest.mark.parametrize("space", [EVERYTHING, ARM, *ARM, *EVERYTHING.values(), spaces.Box(0, 1, ())], ids=str)
def test_encoding_inverts_action(space):
    """Each sample becomes a valid action of the environment, and encoding that gives the sample back, also in a
    batch."""
    env = wrap(space)
    env.action_space.seed(3)
    samples = np.stack([env.action_space.sample() for _ in range(20)])
    assert samples[0] in env.action_space and samples.dtype == np.float32
    env_actions = [env.action(sample) for sample in samples]
    assert all(each in space for each in env_actions)
    np.testing.assert_allclose([env.encode(as_arrays(each, space)) for each in env_actions], samples, atol=1e-6)
    np.testing.assert_allclose(env.encode(stack_actions(env_actions, space)), samples, atol=1e-6)


def stack_actions(env_actions, space):
    """Stack actions of the environment along a new first axis of each part."""
    if isinstance(space, spaces.Dict):
        return {key: stack_actions([each[key] for each in env_actions], part) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(
            stack_actions(part, kind) for part, kind in zip(zip(*env_actions, strict=True), space, strict=True)
        )
    return np.stack(env_actions)
