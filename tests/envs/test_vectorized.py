"""Vectorized environments give the same steps as plain ones, in each autoreset mode."""

from contextlib import closing

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from dreamer.algorithms.policy import random_policy
from dreamer.config.load import load_config
from dreamer.envs.make import make_eval_env, make_train_env
from dreamer.envs.maker import Maker
from dreamer.envs.vectorized import FirstOfVector
from dreamer.errors import ConfigError, EnvError
from dreamer.training.collect import run_episodes

MODES = list(AutoresetMode)
SPACE = spaces.Dict(number=spaces.Discrete(40), noise=spaces.Box(-1, 1, (2,), np.float64))


class Walk(gymnasium.Env):
    """Observes the number of the step and noise; from 3 to 9 steps, in the last of which it is a success."""

    observation_space, action_space = SPACE, spaces.Box(-2.0, 4.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.length = 0, int(self.np_random.integers(3, 10))
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        over = self.count == self.length
        reward = float(action[0]) + 10 * self.count
        return self.observe(), reward, over and self.length % 2 == 0, over and self.length % 2 == 1, {"success": over}

    def observe(self):
        return {"number": self.count, "noise": self.np_random.uniform(-1, 1, 2)}


def make_walks(mode, count):
    return SyncVectorEnv([Walk] * count, autoreset_mode=mode)


class Simulator(VectorEnv):
    """Steps all at once, with one generator of random numbers for all, as simulators on a GPU do. Episodes of from 3
    to 9 steps."""

    def __init__(self, mode, num_envs=1):
        self.num_envs, self.metadata = num_envs, {"autoreset_mode": mode}
        self.single_observation_space, self.single_action_space = spaces.Box(-1, 40, (2,)), spaces.Box(-2.0, 4.0, (1,))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        if seed is not None or not hasattr(self, "count"):
            self.count, self.length = np.zeros(self.num_envs, int), np.zeros(self.num_envs, int)
        self.over = np.zeros(self.num_envs, bool)
        self.begin(mask)
        return self.observe(), {}

    def begin(self, mask):
        self.count[mask], self.length[mask] = 0, self.np_random.integers(3, 10, mask.sum())

    def step(self, actions):
        new_episode, mode = self.over, self.metadata["autoreset_mode"]
        assert not (new_episode.any() and mode == AutoresetMode.DISABLED)
        self.count += 1
        reward = np.where(new_episode, 0, actions[:, 0] + 10 * self.count)
        if new_episode.any():
            self.begin(new_episode)
        observation, info, self.over = self.observe(), {}, (self.count == self.length) & ~new_episode
        over = self.over
        if mode == AutoresetMode.SAME_STEP and over.any():
            info, self.over = {"final_obs": observation}, np.zeros(self.num_envs, bool)
            self.begin(over)
            observation = self.observe()
        return observation, reward, over, np.zeros(self.num_envs, bool), info

    def observe(self):
        noise = self.np_random.uniform(-1, 1, self.num_envs)
        return np.stack([self.count, noise], 1).astype(np.float32)


class Alone(gymnasium.Env):
    """The plain environment of which a `Simulator` of one is the vectorised form."""

    observation_space, action_space = spaces.Box(-1, 40, (2,)), spaces.Box(-2.0, 4.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.length = 0, int(self.np_random.integers(3, 10, 1)[0])
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        return self.observe(), float(action[0]) + 10 * self.count, self.count == self.length, False, {}

    def observe(self):
        return np.append(self.count, self.np_random.uniform(-1, 1, 1)).astype(np.float32)


def config_of(*overrides):
    settings = ["environment.benchmark=python", "environment.from_pixels=False", "environment.frame_skip=2"]
    return load_config("dreamer", [*settings, *overrides]).environment


def play_episodes(make, *overrides, episodes=7, seed=3):
    """The steps of episodes of random actions, one after the other."""
    with closing(make_train_env(config_of(*overrides), seed, Maker(make))) as env:
        return [list(each) for each in run_episodes(env, random_policy(env), episodes)]


def assert_equal(one, other):
    assert [len(each) for each in one] == [len(each) for each in other]
    for step, new_episode in zip(sum(one, []), sum(other, []), strict=True):
        for name in step._fields:
            np.testing.assert_array_equal(getattr(step, name), getattr(new_episode, name), err_msg=name)


@pytest.mark.parametrize("mode", MODES)
def test_vector_of_one_equals_the_plain_environment(mode):
    """Steps and successes are equal bit for bit, also for a vector environment that is not built from single ones."""
    assert_equal(play_episodes(lambda: make_walks(mode, 1)), play_episodes(Walk))
    assert_equal(play_episodes(lambda: Simulator(mode)), play_episodes(Alone))


def test_gymnasiums_vectorized_environments_are_used():
    """gymnasium's vectorized CartPole has its own random numbers, and its episodes end at different times."""
    settings = ["environment.benchmark=gymnasium", "environment.task_name=CartPole-v1", "environment.frame_skip=1"]
    environment = config_of(*settings, "environment.vectorized=True", "environment.num_envs=3")
    with closing(make_train_env(environment, 0)) as env, closing(make_eval_env(environment, 0)) as evaluated:
        assert env.num_envs == 3 and not hasattr(evaluated, "num_envs")
        for episode in run_episodes(env, random_policy(env), 6):
            steps = list(episode)
            assert steps[-1].is_terminal and len(steps) > 8
            assert sum(step.reward for step in steps) == len(steps) - 1
            assert abs(steps[-1].observation[2]) > 0.2 > abs(steps[-2].observation[2]), (
                "the pole has fallen in the last"
            )
        assert evaluated.reset()[0].shape == (4,)


@pytest.mark.parametrize("make", [make_walks, Simulator])
@pytest.mark.parametrize("mode", MODES)
def test_each_environment_plays_one_whole_episode_per_round(make, mode):
    """The last observation belongs to the same episode, although the environments reset themselves."""
    episodes_found = play_episodes(lambda: make(mode, 4), episodes=6)
    assert len(episodes_found) == 6
    for steps in episodes_found:
        numbers = [step.observation[0 if make is Simulator else slice(2, None)] for step in steps]
        count = [int(n) if make is Simulator else int(np.argmax(n)) for n in numbers]
        assert count[:-1] == list(range(0, 2 * len(steps) - 2, 2)) and count[-1] - count[-2] in (1, 2), count
        assert 3 <= count[-1] <= 9 and [step.is_first for step in steps] == [True] + [False] * (len(steps) - 1)
        assert sum(step.env_steps for step in steps) == count[-1]


@pytest.mark.parametrize("mode", MODES)
def test_episodes_do_not_depend_on_the_autoreset_mode(mode):
    """The seeds of a round and the actions determine the episodes."""
    assert_equal(
        play_episodes(lambda: make_walks(mode, 3)), play_episodes(lambda: make_walks(AutoresetMode.DISABLED, 3))
    )


def test_async_environments_are_reseeded_in_each_episode():
    """Their random state cannot be saved, so each episode has its own seed and the episode's number is saved."""
    with closing(FirstOfVector(AsyncVectorEnv([Walk] * 2, context="fork"))) as env:
        first_observations = [env.reset(seed=3), *(env.reset() for _ in range(3))]
        assert env.unwrapped is env and len({str(observation) for observation, _ in first_observations}) == 4
        env.load_state_dict(env.state_dict() | {"episode": 1})
        assert str(env.reset()) == str(first_observations[2])


class Saved(Simulator):
    """Saves its own state, which is all of it between two rounds."""

    def state_dict(self):
        return {"random": self.np_random.bit_generator.state}

    def load_state_dict(self, state):
        self.np_random.bit_generator.state = state["random"]


MAKERS = {
    "with a state": lambda: Saved(AutoresetMode.SAME_STEP, 3),
    "wrapped": lambda: gymnasium.wrappers.vector.RecordEpisodeStatistics(make_walks(AutoresetMode.NEXT_STEP, 1)),
    "one": lambda: make_walks(AutoresetMode.NEXT_STEP, 1),
    "three": lambda: make_walks(AutoresetMode.SAME_STEP, 3),
    "one simulator": lambda: Simulator(AutoresetMode.NEXT_STEP),
    "a simulator": lambda: Simulator(AutoresetMode.SAME_STEP, 3),
}


@pytest.mark.parametrize("name", MAKERS)
def test_vectorized_environments_can_be_restored(name):
    """The state between two rounds restores training and evaluation environments."""
    environment, maker = config_of(), Maker(MAKERS[name])
    for make in (make_train_env, make_eval_env):
        with closing(make(environment, 3, maker=maker)) as env, closing(make(environment, 4, maker=maker)) as other:
            policy = random_policy(env)
            before = [list(each) for each in run_episodes(env, policy, 3)]
            state = env.state_dict()
            other.load_state_dict(state)
            expected = [list(each) for each in run_episodes(env, policy, 3)]
            assert_equal([list(each) for each in run_episodes(other, random_policy(other), 3)], expected)
            assert before[0][0].observation.tolist() != expected[0][0].observation.tolist()


@pytest.mark.parametrize(
    "make, overrides, message_part",
    [
        (
            lambda: make_walks(AutoresetMode.NEXT_STEP, 2),
            ["environment.num_envs=2"],
            "makes 2 stepped as one; set environm",
        ),
        (
            lambda: make_walks(AutoresetMode.NEXT_STEP, 2),
            ["environment.num_envs=3", "environment.vectorized=True"],
            "num_envs: 3, but .* makes 2; let the function take num_envs",
        ),
        (lambda: make_walks(AutoresetMode.NEXT_STEP, 2), ["environment.from_pixels=True"], "does not render to arrays"),
    ],
)
def test_invalid_vectorized_settings_are_refused(make, overrides, message_part):
    with pytest.raises(EnvError, match=message_part):
        make_train_env(config_of(*overrides), 0, Maker(make))
    with pytest.raises(ConfigError, match="^environment.vectorized: True needs environment.benchmark gymnasium"):
        load_config("dreamer", ["environment.vectorized=True"])


class Wrong(Simulator):
    """Three environments whose step results are changed."""

    def __init__(self, changes):
        super().__init__(AutoresetMode.SAME_STEP, 3)
        self.changes = changes

    def step(self, actions):
        names = "observation", "reward", "terminated", "truncated", "info"
        answer = dict(zip(names, super().step(actions), strict=True))
        return tuple((answer | self.changes(answer)).values())


class Vague(Walk):
    """Reports half a success."""

    def step(self, action):
        *answer, _ = super().step(action)
        return *answer, {"success": 0.5}


def test_non_boolean_success_is_refused_only_with_a_success_key():
    def make(num_envs):
        return SyncVectorEnv([Vague] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)

    three = ["environment.num_envs=3", "environment.vectorized=True"]
    assert all(np.isnan(step.success) for steps in play_episodes(make, *three) for step in steps)
    with pytest.raises(EnvError, match=r"step gave info\['success'\] .*0\.5.*; expected True or False"):
        play_episodes(make, *three, "environment.success_key=success")


@pytest.mark.parametrize(
    "changes, message_part",
    [
        (lambda answer: {"reward": answer["reward"] * np.nan}, "step gave the rewards .*nan; expected numbers from"),
        (lambda answer: {"reward": answer["reward"][:2]}, "step gave the rewards .*; expected 3 numbers"),
        (lambda answer: {"terminated": [None] * 3}, "step gave the terminations .*; expected 3 numbers"),
        (lambda answer: {"observation": answer["observation"][:, 0]}, r"expected numbers \(3, 2\), for 3 of Box"),
        (lambda answer: {"observation": answer["observation"] * np.inf}, "expected finite numbers"),
        (lambda answer: {"info": {}}, r"gave no info\['final_obs'\]; expected it of autoreset mode SAME_STEP"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_invalid_step_results_are_one_line_errors(changes, message_part):
    with pytest.raises(EnvError, match=message_part) as caught:
        play_episodes(lambda: Wrong(changes))
    assert "\n" not in str(caught.value)


def test_make_function_may_take_num_envs():
    episodes_found = play_episodes(
        lambda num_envs: make_walks(AutoresetMode.NEXT_STEP, num_envs),
        "environment.vectorized=True",
        "environment.num_envs=5",
        episodes=5,
    )
    assert len(episodes_found) == 5
