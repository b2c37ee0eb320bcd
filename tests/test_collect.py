import numpy as np

from dreamer.collect import run_episode
from tests.toys import ToyEnv


class Counter(ToyEnv):
    """Shows the number of steps taken, rewards with ten times that plus the action."""

    def observe(self):
        return np.full(1, self.count, np.float32)

    def reward(self, action):
        return 10 * self.count + action[0]


def play(terminates):
    return list(run_episode(Counter(3, terminates, env_steps=2), lambda step: 0.1 * (step.observation + 1)))


def test_what_arrives_together_has_one_index():
    """At t: o_t, the action that led to it (chosen at o_{t-1}) and the reward received with it."""
    steps = play(terminates=False)
    assert [step.observation[0] for step in steps] == [0, 1, 2, 3]
    np.testing.assert_allclose([step.action[0] for step in steps], [0, 0.1, 0.2, 0.3])
    np.testing.assert_allclose([step.reward for step in steps], [0, 10.1, 20.2, 30.3])
    assert [step.is_first for step in steps] == [True, False, False, False]
    assert [step.env_steps for step in steps] == [0, 2, 2, 2]


def test_truncation_is_not_terminal():
    assert [step.is_terminal for step in play(terminates=False)] == [False] * 4
    assert [step.is_terminal for step in play(terminates=True)] == [False] * 3 + [True]
