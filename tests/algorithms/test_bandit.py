"""Each version learns a small task from random play. The observation shows the right action, so a wrong sign, baseline
or time index makes the score low."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamer.algorithms.policy import Policy, random_policy
from dreamer.build import build_algorithm
from dreamer.config.load import load_config
from dreamer.envs.actions import ActionParts
from dreamer.replay.step import Batch
from dreamer.training.collect import run_episode
from tests.small_algorithms import NAMES, SIZES
from tests.toys import SMALL, ToyEnv


class Cues(ToyEnv):
    """The observation is a random one-hot cue; the action that equals it gets reward 1."""

    action_space = ActionParts([3])
    best = 1  # highest reward of a step
    observation_space = spaces.Box(0, 3, (3,), np.float32)

    def observe(self):
        self.cue = np.eye(3, dtype=np.float32)[self.random.integers(3)]
        return 3 * self.cue

    def reward(self, action):
        return float(action @ self.cue)

    def step(self, action):
        reward = self.reward(action)
        observation, _, *others = super().step(action)
        return observation, reward, *others


class CuesAndSigns(Cues):
    """The action is a choice and a number. Cues show the right choice and sign; each right part gets reward 1."""

    action_space = ActionParts([3, 0])
    best = 2
    observation_space = spaces.Box(-3, 3, (4,), np.float32)

    def observe(self):
        self.cue = np.append(np.eye(3)[self.random.integers(3)], self.random.choice([0, 1])).astype(np.float32)
        return 6 * self.cue - 3

    def reward(self, action):
        return float(action[:3] @ self.cue[:3]) + float((action[3] > 0) == self.cue[3])


SETTINGS = ["batch_size=16", "horizon_length=3", "discount=0.5", "free_nats=0.1", "adam_epsilon=1e-5", *SIZES]
SETTINGS += [f"{part}.num_layers=1" for part in ("reward", "agent.actor", "agent.critic")]
LEARNING_RATES = {1: (3e-3, 3e-3, 3e-3), 2: (3e-3, 3e-3, 3e-3), 3: (1e-2, 1e-2, 1e-2)}
ONE_BLOCK = "rssm.recurrent_model.blocks=1"  # eight of so few units learn slowly
VERSION_SETTINGS = {
    1: ["free_nats=0", "kl_divergence_scale=0.1"],
    2: ["kl_divergence_scale=0.1", "slow_critic_interval=10", "entropy_scale=1e-2"],
    3: ["warm_up=10", "kl_divergence_scale=0.1", "entropy_scale=3e-3", "deterministic_size=32", ONE_BLOCK],
}


def make(version, env, *overrides):
    learning_rates = [f"{part}_learning_rate={rate}" for part, rate in zip(PARTS, LEARNING_RATES[version], strict=True)]
    settings = [*SETTINGS, *learning_rates, *VERSION_SETTINGS[version], *overrides]
    config = load_config(NAMES[version], SMALL + [f"parameters.dreamer.{setting}" for setting in settings])
    torch.manual_seed(0)
    return build_algorithm(config, env, torch.device("cpu"))


PARTS = "model", "actor", "critic"


def play(env, policy, episodes):
    return [step for _ in range(episodes) for step in run_episode(env, policy)]


def batches(steps, batch_size, length, seed=0):
    """Yield batches of random windows of `steps`."""
    random = np.random.default_rng(seed)
    columns = [torch.tensor(np.array(part, np.float32)) for part in list(zip(*steps, strict=True))[:5]]
    while True:
        starts = random.integers(len(steps) - length + 1, size=batch_size)
        windows = ([column[start : start + length] for start in starts] for column in columns)
        yield Batch(*map(torch.stack, windows), torch.zeros(batch_size, 0))


def score(algorithm, env):
    """Return the fraction of the highest possible reward that the policy gets."""
    steps = play(env, Policy(algorithm.model, algorithm.actor), 10)
    return np.mean([step.reward for step in steps if not step.is_first]) / env.best


@pytest.mark.parametrize("version", NAMES)
def test_each_version_learns_a_choice_and_a_continuous_action(version):
    """Within a few hundred updates the score is above 0.95 in two consecutive evaluations."""
    env = CuesAndSigns(length=10)
    algorithm, scores = make(version, env), [0]
    training_batches = batches(play(env, random_policy(env), 100), 24, 6)
    while len(scores) < 12 and min(scores[-2:]) <= 0.95:
        for _ in range(40):
            algorithm.update(next(training_batches))
        scores.append(score(algorithm, CuesAndSigns(length=10, seed=1)))
    assert min(scores[-2:]) > 0.95


def test_reinforce_compares_returns_with_the_value_before_the_action():
    """The actor starts to learn when the critic has converged. Then only an advantage over the value before the action
    tells good actions from bad ones; over the value after it, the advantage is zero."""
    algorithm = make(2, Cues(length=10), "slow_critic_interval=1")
    training_batches = batches(play(Cues(length=10), random_policy(Cues(length=10)), 100), 24, 6)
    optimizer = algorithm.actor_critic.actor_optimizer
    optimizer.move = lambda: torch.zeros(())  # the actor does not move during the first 200 updates
    for update in range(1, 301):
        if update == 200:
            del optimizer.move
        algorithm.update(next(training_batches))
    assert score(algorithm, Cues(length=10, seed=1)) > 0.95
