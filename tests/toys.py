"""Small environments with known right answers, and small agents."""

from copy import deepcopy
from tempfile import TemporaryDirectory

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from dreamer.algorithms.policy import random_policy
from dreamer.build import build_algorithm, build_replay
from dreamer.config.load import load_config
from dreamer.training.data_parallel import NoLogger, NoProgress
from dreamer.training.evaluation import Evaluator
from dreamer.training.evaluation_runner import EvaluationRunner
from dreamer.training.trainer import Trainer

SIZED = ["encoder", "decoder", "reward", "continue_", "agent.actor", "agent.critic"]
SIZED += [f"rssm.{kind}_model" for kind in ("recurrent", "transition", "representation")]
SMALL = ["batch_size=8", "batch_length=10", "horizon_length=5", "deterministic_size=16", "stochastic_size=4"]
SMALL = [f"parameters.dreamer.{setting}" for setting in SMALL + [f"{part}.hidden_size=32" for part in SIZED]]
SMALL += ["operation.video_interval=0", "environment.from_pixels=False"]


class ToyEnv(gymnasium.Env):
    """Observe the fraction of the episode that is over. The reward is the action, one number.

    An episode has `length` steps, which count as `env_steps` each.
    """

    action_space = spaces.Box(-1, 1, (1,), np.float32)
    observation_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length=20, terminates=False, seed=0, env_steps=1):
        self.max_agent_steps = self.length = length
        self.terminates, self.env_steps = terminates, env_steps
        self.random = np.random.default_rng(seed)
        self.action_space.seed(seed)

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        over = self.count == self.length
        observation = self.observe()
        return observation, self.reward(action), over and self.terminates, over, {"env_steps": self.env_steps}

    def observe(self):
        return np.full(1, self.count / self.length, np.float32)

    def reward(self, action):
        return float(action[0])

    def state_dict(self):
        return {"random": self.random.bit_generator.state}

    def load_state_dict(self, state):
        self.random.bit_generator.state = state["random"]


class CoinEnv(ToyEnv):
    """The observation is a coin of -1 or 1. The reward is 3 times the coin times the sign of the action before it.

    The coin is tossed after the action, so all policies have return 0 on average. The best constant prediction of the
    reward is 0, with a squared error of 9. Action and coin together predict the reward exactly.
    """

    def observe(self):
        self.coin = self.random.choice([-1.0, 1.0])
        return np.full(1, self.coin, np.float32)

    def reward(self, action):
        return 3.0 * float(np.sign(action[0])) * self.coin


class FrameEnv(ToyEnv):
    """Observe frames of one shade, which encodes the episode and the step."""

    observation_space = spaces.Box(0, 255, (3, 64, 64), np.uint8)
    episode = 0

    def reset(self, *, seed=None, options=None):
        self.episode += 1
        return super().reset()

    def observe(self):
        return np.full((3, 64, 64), 20 * self.episode + self.count, np.uint8)


class Recorder(NoLogger, NoProgress):
    """Replace logger and progress bar, and keep what is logged."""

    def __init__(self):
        self.rows, self.videos = [], []

    def scalars(self, values, env_steps, iteration=0):
        self.rows += [(tag, float(value), env_steps) for tag, value in values.items()]

    def video(self, tag, frames, env_steps, frames_per_second=15):
        self.videos.append((tag, frames, env_steps))

    def of(self, tag):
        """Return the values logged under a tag."""
        return [value for name, value, _ in self.rows if name == tag]


def make_dreamer(env, *overrides, seed=0, **operation):
    """Return a small Dreamer for `env`; overrides as on the command line, without "parameters.dreamer."."""
    overrides = [f"parameters.dreamer.{override}" for override in overrides]
    overrides += [f"operation.{key}={value}" for key, value in operation.items()]
    return make_agent(load_config("dreamer", SMALL + overrides), env, seed)


def make_plan2explore(env, *overrides, seed=0):
    """Return a small Plan2Explore for `env`; overrides as on the command line, without "parameters."."""
    small = ["plan2explore.num_ensemble=5", "plan2explore.one_step_model.hidden_size=32"]
    overrides = [f"parameters.{override}" for override in (*small, *overrides)]
    return make_agent(load_config("plan2explore", SMALL + overrides), env, seed)


def make_agent(config, env, seed=0):
    """Return the configuration's algorithm. Its `trainer` collects and evaluates in `env` and logs into a Recorder."""
    torch.manual_seed(seed)
    algorithm = build_algorithm(config, env, torch.device("cpu"))
    folder, recorder = TemporaryDirectory(), Recorder()
    replay = build_replay(config, env, folder.name, seed, algorithm.model.rssm)
    replay.temporary = folder  # lives as long as the replay
    evaluations = EvaluationRunner(lambda: make_evaluator(algorithm, env))
    algorithm.trainer = Trainer(config, algorithm, env, evaluations, replay, recorder, recorder)
    return algorithm


def make_evaluator(agent, env, seed=0):
    """Return an evaluator with copies of the agent's networks."""
    return Evaluator(env, deepcopy(agent.model), deepcopy(agent.actor), seed)


def train(agent, eval_env=None, checkpoint=lambda iteration, last: None):
    """Run the agent's trainer, with evaluations in `eval_env` if it is given. Return the agent."""
    if eval_env:
        agent.trainer.evaluations = EvaluationRunner(lambda: make_evaluator(agent, eval_env))
    agent.trainer.run(checkpoint)
    return agent


def fill(agent, episodes):
    """Collect episodes with uniformly random actions. Return the agent."""
    agent.trainer.collect(random_policy(agent.trainer.env), episodes)
    return agent


def evaluate(agent):
    """Evaluate the agent once. Return the mean return."""
    agent.trainer.evaluate(last=False)
    agent.trainer.report_evaluation(agent.trainer.evaluations.result())
    return agent.trainer.logger.of("eval/return")[-1]


def learn_model(dreamer, batch):
    """Make one gradient step of the world model. Return posterior states, embeddings and metrics."""
    loss, posterior, embedding, metrics = dreamer.model_loss(batch)
    metrics["grad_norm/model"] = dreamer.model_optimizer.step(loss)
    return posterior.detach(), embedding.detach(), metrics


def parameters(agent):
    """Return copies of all parameters by network."""
    return {
        part: {name: value.detach().clone() for name, value in network.named_parameters()}
        for part, network in agent.networks.items()
    }


def changed(before, after):
    """Return the networks of which any parameter differs."""
    return {part for part in before if any((before[part][name] != after[part][name]).any() for name in before[part])}


def spy(monkeypatch, target, name):
    """Return a list that fills with arguments and result of each call of target.name."""
    calls, original = [], getattr(target, name)

    def wrapped(*args, **keywords):
        result = original(*args, **keywords)
        calls.append((args, result))
        return result

    monkeypatch.setattr(target, name, wrapped)
    return calls


def settings_of(names, *overrides):
    """Return `parameters.dreamer` of a configuration; overrides without that prefix."""
    return load_config(names, [f"parameters.dreamer.{override}" for override in overrides]).parameters.dreamer


class ShortEpisodes:
    """Truncate episodes after `length` steps, so that a test need not render whole ones."""

    def __init__(self, env, length):
        self.env, self.length = env, length

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self):
        self.count = 0
        return self.env.reset()

    def step(self, action):
        self.count += 1
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated or self.count == self.length, info
