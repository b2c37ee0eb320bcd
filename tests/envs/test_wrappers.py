import gym
import numpy as np
import pytest
from gym import spaces

from dreamer.checkpoint import copy_to_cpu
from dreamer.envs.wrappers import ActionRepeat, OneHot, OneHotAction, Resumable, VectorObservation
from tests.envs.playing import goes_on, play
from tests.envs.toy import ACTIONS, FRAME, Toy, make, make_toy


def test_action_repeat_sums_rewards_and_stops_at_the_end():
    env = ActionRepeat(Toy(length=5), 3)
    env.reset()
    assert env.step(ACTIONS.high)[1:] == (1 + 2 + 3, False, False, {"env_steps": 3, "step": 3})
    observation, *rest = env.step(ACTIONS.low)
    assert rest == [4 + 5, True, False, {"env_steps": 2, "step": 5}]  # what the environment says stays
    assert observation is env.unwrapped.last_observation
    np.testing.assert_array_equal(env.unwrapped.actions, 3 * [ACTIONS.high] + 2 * [ACTIONS.low])


def test_action_repeat_stops_when_the_clock_ends_the_episode():
    env = ActionRepeat(gym.wrappers.TimeLimit(Toy(length=9), 2), 4)
    env.reset()
    *_, terminated, truncated, info = env.step(ACTIONS.low)
    assert (terminated, truncated, info["env_steps"]) == (False, True, 2)


def test_action_repeat_says_how_many_decisions_an_episode_holds():
    """By the environment's own limit, or by that of gym's registry."""
    assert [ActionRepeat(Toy(length=5), amount).max_agent_steps for amount in (1, 2, 3, 5, 8)] == [5, 3, 2, 1, 1]
    assert ActionRepeat(gym.make("Pendulum-v1", disable_env_checker=True), 3).max_agent_steps == 67
    assert ActionRepeat(gym.make("tests.envs.toy:Toy-v0", disable_env_checker=True), 3).max_agent_steps is None


@pytest.mark.parametrize("height, width", [(64, 64), (48, 80)])
def test_pixels_are_what_render_shows_resized_and_channel_first(height, width):
    env = make_toy(from_pixels=True, height=height, width=width)
    frame, _ = env.reset()
    assert (frame.shape, frame.dtype) == ((3, height, width), np.uint8)
    assert frame in env.observation_space
    red, green, blue = frame.astype(int)
    assert (green == 100).all()
    for channel, axis in ((red, 1), (blue, 0)):
        assert (np.diff(channel, axis=axis) >= 0).all() and (np.diff(channel, axis=1 - axis) == 0).all()
        assert channel.min() < 5 and channel.max() > 250


def test_pixels_of_the_right_size_are_left_alone():
    env = make_toy(from_pixels=True, height=30, width=40)
    env.reset()
    frame, *_ = env.step(env.action_space.sample())
    np.testing.assert_array_equal(frame.transpose(1, 2, 0), FRAME)
    assert frame.flags.c_contiguous


def test_vectors_and_dictionaries_become_flat_float32():
    matrix = VectorObservation(Toy(observation_space=spaces.Box(-1.0, 1.0, (2, 3), np.float64)))
    for env in (matrix, make_toy("ToyDict-v0")):
        observation, _ = env.reset()
        original = env.unwrapped.last_observation
        if isinstance(original, dict):
            original = np.array([*np.eye(3)[original["mode"]], *original["position"].ravel()])
        assert observation in env.observation_space
        assert (observation.dtype, env.observation_space.dtype) == (np.float32, np.float32)
        np.testing.assert_allclose(observation, original.ravel(), rtol=1e-6)


def test_one_hot_samples_are_seeded_and_uniform():
    def samples(seed):
        space = OneHot(3)
        space.seed(seed)
        drawn = np.stack([space.sample() for _ in range(1500)])
        assert drawn[0] in space and (np.sort(drawn) == [0, 0, 1]).all()
        return drawn

    first = samples(7)
    np.testing.assert_array_equal(first, samples(7))
    np.testing.assert_allclose(first.mean(0), 1 / 3, atol=0.06)  # five standard deviations
    assert (samples(8) != first).any()


@pytest.mark.parametrize("start", [0, 5])
def test_one_hot_action_becomes_the_index(start):
    env = OneHotAction(Toy(spaces.Discrete(3, start=start)))
    env.reset()
    assert env.action_space.shape == (3,)
    for row in np.eye(3, dtype=np.float32):
        env.step(row)
    assert env.unwrapped.actions == [start, start + 1, start + 2]
    assert all(action in env.unwrapped.action_space for action in env.unwrapped.actions)


# Saving between two episodes


@pytest.mark.parametrize("task_name", ["CartPole-v1", "Pendulum-v1", "MountainCar-v0"])
def test_gyms_own_randomness_and_that_of_random_actions_go_on(task_name):
    """Discrete actions, one-hot here, and continuous ones, rescaled here."""
    assert goes_on(*(make(seed=seed, benchmark="gym", task_name=task_name, from_pixels=False) for seed in (1, 2)))


class Drifting(Toy):
    """Observes how many episodes there have been: more than `np_random` goes from one to the next."""

    episodes = np.zeros(3)

    def _observe(self):
        if not self.actions:
            self.episodes = self.episodes + self.np_random.random(3)
        return self.episodes


class Remembering(Drifting):
    def state_dict(self):
        return {"episodes": self.episodes}

    def load_state_dict(self, state):
        self.episodes = np.array(state["episodes"])


@pytest.mark.parametrize("kind, expected", [(Drifting, False), (Remembering, True)])
def test_an_environments_own_state_goes_on_if_it_has_one(kind, expected):
    envs = [Resumable(VectorObservation(ActionRepeat(kind(), 1))) for _ in range(2)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
        env.action_space.seed(seed)
    assert goes_on(*envs) == expected
    assert (envs[0].state_dict()["environment"] is None) == (kind is Drifting)


def test_a_state_is_not_changed_by_going_on():
    env = make(benchmark="gym", task_name="Pendulum-v1", from_pixels=False)
    state = env.state_dict()
    kept = copy_to_cpu(state)
    play(env)
    assert copy_to_cpu(state) == kept != copy_to_cpu(env.state_dict())
