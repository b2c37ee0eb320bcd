"""Small environments whose right answers are known, and a Dreamer small enough to test."""

from copy import deepcopy
from tempfile import TemporaryDirectory

import gym
import numpy as np
import torch
from gym import spaces

from dreamer.algorithms.policy import random_policy
from dreamer.build import build_algorithm, build_networks
from dreamer.config import load_config
from dreamer.envs.make import is_discrete
from dreamer.evaluator import Evaluator
from dreamer.replay import ReplayBuffer

SMALL = [
    "operation.video_interval=0",
    "environment.from_pixels=False",
    "parameters.dreamer.batch_size=8",
    "parameters.dreamer.batch_length=10",
    "parameters.dreamer.horizon_length=5",
    "parameters.dreamer.deterministic_size=16",
    "parameters.dreamer.stochastic_size=4",
    *(
        f"parameters.dreamer.{part}.hidden_size=32"
        for part in (
            "encoder",
            "decoder",
            "reward",
            "continue_",
            "agent.actor",
            "agent.critic",
            "rssm.recurrent_model",
            "rssm.transition_model",
            "rssm.representation_model",
        )
    ),
]


class ToyEnv(gym.Env):
    """Vectors in, an action of one number out; an episode of `length` steps, of one env step each."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)
    observation_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length=20, terminates=False, seed=0):
        self.max_agent_steps = self.length = length
        self.terminates = terminates
        self.random = np.random.default_rng(seed)
        self.action_space.seed(seed)

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        over = self.count == self.length
        observation = self.observe()
        return observation, self.reward(action), over and self.terminates, over, {"env_steps": 1}

    def observe(self):
        return np.full(1, self.count / self.length, np.float32)

    def reward(self, action):
        return float(action[0])


class CoinEnv(ToyEnv):
    """The observation is a coin; the reward is 3, signed by the coin and by the action that led to it.

    The coin falls only on arriving, so no policy gains anything and 0 is the best constant (its mean
    squared error is 9). Who knows both the action that led here and what is seen here knows the reward.
    """

    def observe(self):
        self.coin = self.random.choice([-1.0, 1.0])
        return np.full(1, self.coin, np.float32)

    def reward(self, action):
        return 3.0 * float(np.sign(action[0])) * self.coin


class Recorder:
    """Stands in for the logger and for the progress bar."""

    def __init__(self):
        self.rows, self.videos, self.phases = [], [], []

    def scalars(self, values, env_steps):
        self.rows += [(tag, float(value), env_steps) for tag, value in values.items()]

    def video(self, tag, frames, env_steps, frames_per_second=15):
        self.videos.append((tag, frames, env_steps))

    def phase(self, text):
        self.phases.append(text)

    def stepped(self, env_steps): ...

    def finished(self, episode_return): ...

    def of(self, tag):
        return [value for name, value, _ in self.rows if name == tag]


def make_dreamer(env, *overrides, seed=0):
    """A small Dreamer for `env`; overrides as on the command line, without "parameters.dreamer."."""
    return make_agent(
        load_config("dreamer", SMALL + [f"parameters.dreamer.{override}" for override in overrides]), env, seed
    )


def make_plan2explore(env, *overrides, seed=0):
    """A small Plan2Explore for `env`; overrides as on the command line, without "parameters."."""
    small = ["plan2explore.num_ensemble=5", "plan2explore.one_step_model.hidden_size=32"]
    overrides = [f"parameters.{override}" for override in (*small, *overrides)]
    return make_agent(load_config("plan2explore", SMALL + overrides), env, seed)


def make_agent(config, env, seed=0):
    """The configuration's algorithm, whose logger and progress bar are one Recorder."""
    torch.manual_seed(seed)
    space, action_size = env.observation_space, env.action_space.shape[0]
    networks = build_networks(config, space.shape, action_size, is_discrete(env))
    folder, capacity = TemporaryDirectory(), config.parameters.dreamer.buffer.capacity
    buffer = ReplayBuffer(folder.name, capacity, space.shape, space.dtype, action_size, seed)
    buffer.temporary = folder  # lives as long as the replay
    recorder = Recorder()
    return build_algorithm(config, networks, buffer, recorder, recorder)


def fill(dreamer, env, episodes):
    """Let uniformly random actions collect."""
    dreamer.environment_interaction(env, random_policy(env), episodes)


def make_evaluator(agent, env, seed=0):
    """What evaluates it, with networks of its own."""
    return Evaluator(env, deepcopy(agent.model), deepcopy(agent.behavior.actor), agent.pixel_norm, seed)


def evaluate(agent, env):
    """Let it be evaluated once; the mean return."""
    evaluator = make_evaluator(agent, env)
    agent.evaluate(evaluator)
    agent.report_evaluation(evaluator.result())
    return agent.logger.of("eval/return")[-1]


def parameters(agent):
    """Copies of all parameters, by the network that they belong to."""
    return {
        part: {name: value.detach().clone() for name, value in network.named_parameters()}
        for part, network in agent.networks.items()
    }


def changed(before, after):
    """The parts of which any parameter changed."""
    return {part for part in before if any((before[part][name] != after[part][name]).any() for name in before[part])}
