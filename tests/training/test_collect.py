import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dreamer.errors import NotFiniteError
from dreamer.training.collect import run_episode, run_episodes


class Counter(gymnasium.Env):
    """Shows the number of steps taken, rewards with ten times that plus the action, and ends after three."""

    observation_space = spaces.Box(0, 10, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, terminates):
        self.terminates = terminates

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        over = self.count == 3
        reward = 10 * self.count + action[0]
        return np.full(1, self.count, np.float32), reward, over and self.terminates, over, {"env_steps": 2}


def play(terminates):
    return list(run_episode(Counter(terminates), lambda step: 0.1 * (step.observation + 1)))


def test_observation_action_and_reward_of_a_step_share_one_index():
    """Index t holds o_t, the action that led to it (chosen at o_{t-1}) and the reward received with it."""
    steps = play(terminates=False)
    assert [step.observation[0] for step in steps] == [0, 1, 2, 3]
    np.testing.assert_allclose([step.action[0] for step in steps], [0, 0.1, 0.2, 0.3])
    np.testing.assert_allclose([step.reward for step in steps], [0, 10.1, 20.2, 30.3])
    assert [step.is_first for step in steps] == [True, False, False, False]
    assert [step.env_steps for step in steps] == [0, 2, 2, 2]


def test_truncation_is_not_terminal():
    assert [step.is_terminal for step in play(terminates=False)] == [False] * 4
    assert [step.is_terminal for step in play(terminates=True)] == [False] * 3 + [True]


class Rows(Counter):
    """Two environments in one batch."""

    num_envs = 2

    def reset(self, episodes):
        return np.zeros((2, 1), np.float32)


@pytest.mark.parametrize("env, shape", [(Counter(True), 1), (Rows(True), (2, 1))])
def test_non_finite_action_is_an_error_before_the_environment_steps(env, shape):
    with pytest.raises(NotFiniteError, match="^not finite: an action"):
        list(next(iter(run_episodes(env, lambda step: np.full(shape, np.nan), 2))))
    assert getattr(env, "count", 0) == 0
