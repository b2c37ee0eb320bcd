"""Dreamer: Algorithm 1 of "Dream to Control", to be read from `train` downwards.

Shapes: B batch, T time (dim 1), H horizon, N = B·T, A action size, F feature size.
"""

import time
from contextlib import nullcontext

import numpy as np
import torch
from torch.distributions import kl_divergence

from dreamer.algorithms.actor_critic import ActorCritic, Imagination
from dreamer.algorithms.policy import Policy, random_policy
from dreamer.algorithms.prediction import prediction_video
from dreamer.algorithms.returns import lambda_return
from dreamer.collect import run_episodes
from dreamer.config import ConfigError
from dreamer.metrics import ExponentialAverage, Means, check_finite
from dreamer.modules.pixels import normalize_pixels
from dreamer.modules.rssm import stack
from dreamer.optim import ClippedAdam
from dreamer.recorded import Recorded, ahead, to_device
from dreamer.seeding import own_randomness
from dreamer.speed import one_thread


class Dreamer:
    """Alternates collection with learning of the world model and of a behaviour in its imagination.

    config, operation: the sub-trees `parameters.dreamer` and `operation`. model, actor, critic: on the
    device to learn on. logger and progress take what there is to report.
    """

    def __init__(self, config, operation, model, actor, critic, buffer, logger, progress, pixel_norm):
        self.config = config
        self.model = model
        self.networks, self.optimizers = {}, {}  # by name, all that a checkpoint holds
        self.model_optimizer = self.make_optimizer("model", model, config.model_learning_rate)
        self.behavior = self.make_behavior(actor, critic)
        self.buffer, self.pixel_norm = buffer, pixel_norm
        self.logger, self.progress, self.operation = logger, progress, operation
        self.device = next(model.parameters()).device
        self.recorded = Recorded(lambda batch: self.update(batch), self.device) if operation.fast_paths else None
        self.metrics = Means()
        self.unfinished = {}  # metrics of an update that failed half-way
        self.evaluation_average = ExponentialAverage(span=20)
        self.iteration = self.env_steps = 0

    def make_behavior(self, actor, critic, prefix=""):
        """An actor and a critic with their optimisers. prefix: of their names."""
        return ActorCritic(
            actor,
            critic,
            self.make_optimizer(f"{prefix}actor", actor, self.config.actor_learning_rate),
            self.make_optimizer(f"{prefix}critic", critic, self.config.critic_learning_rate),
        )

    def make_optimizer(self, name, network, learning_rate):
        """The optimiser of a network, and both under this name in every checkpoint."""
        config = self.config
        optimizer = ClippedAdam([network], learning_rate, config.adam_epsilon, config.clip_grad, config.grad_norm_type)
        self.networks[name], self.optimizers[name] = network, optimizer
        return optimizer

    def train(self, env, evaluator, checkpoint=lambda iteration, last: None):
        """Algorithm 1: seed episodes, then iterations of learning, interaction and evaluation.

        evaluator: an `Evaluator`, or a `BackgroundEvaluator`, which plays while this goes on. checkpoint: called at
        the end of each iteration. After `load_state_dict` it goes on from there.
        """
        config = self.config
        if self.iteration == 0:
            if env.max_agent_steps:
                self.check_window(config.seed_episodes * (env.max_agent_steps + 1))
            self.environment_interaction(env, random_policy(env), config.seed_episodes)
            self.check_window(len(self.buffer))
        while self.iteration < config.train_iterations:
            self.iteration += 1
            started, env_steps = time.perf_counter(), self.env_steps
            self.learn()
            self.environment_interaction(env, self.collection_policy(env), config.num_interaction_episodes)
            last = self.iteration == config.train_iterations
            if last or self.iteration % config.evaluate_interval == 0:
                evaluation = self.iteration // config.evaluate_interval  # counted from 1
                interval = self.operation.video_interval
                video = interval and (last or (evaluation - 1) % interval == 0)
                self.evaluate(evaluator, video)
            self.report_evaluation(evaluator.result(wait=last))
            speed = (self.env_steps - env_steps) / (time.perf_counter() - started)
            self.log({"speed/env_steps_per_second": speed, "replay/steps": len(self.buffer)})
            checkpoint(self.iteration, last)

    def check_window(self, stored):
        """Raise ConfigError if no window fits into the steps that the seed episodes store."""
        if stored < self.config.batch_length:
            raise ConfigError(
                f"parameters.dreamer.batch_length: {self.config.batch_length} agent steps, but the seed episodes "
                f"store {stored}; lower it, or raise parameters.dreamer.seed_episodes"
            )

    def learn(self):
        """`collect_interval` updates; logs the means over them. Raises NotFiniteError if any is not finite."""
        started, updates = time.perf_counter(), self.config.collect_interval
        try:
            for update, batch in enumerate(ahead(self.sample, updates), 1):
                self.progress.phase(f"learning {update}/{updates}")
                self.metrics.add(self.run_update(batch))
        except RuntimeError:  # such as from a categorical distribution whose probabilities have become NaN
            self.metrics.add(self.unfinished)
            check_finite(self.metrics.result(), self.iteration)
            raise
        means = self.metrics.result()  # the first moment at which the device must have finished
        check_finite(means, self.iteration)
        self.log(means | {"speed/updates_per_second": updates / (time.perf_counter() - started)})

    def sample(self, random=None):
        """A batch of windows on the device, (B, T, ·), pixels as they are; random: as in `ReplayBuffer.sample`."""
        return to_device(self.buffer.sample(self.config.batch_size, self.config.batch_length, random), self.device)

    def normalize(self, batch):
        """A batch with normalised pixels; if they are so already, it is unchanged."""
        return batch._replace(observation=normalize_pixels(batch.observation, self.pixel_norm))

    def update(self, batch):
        """One gradient step each of the world model, the actor and the critic. Returns the metrics, on the device."""
        posterior, _, metrics = self.dynamics_learning(batch)
        self.unfinished = metrics
        start = self.imagination_start(batch, posterior)
        return metrics | self.behavior_learning(self.behavior, *start, self.predicted_reward)

    def run_update(self, batch):
        """`update`, recorded on a GPU as far as the configuration allows it."""
        return self.recorded(batch, self.exploring) if self.recorded else self.update(batch)

    @property
    def exploring(self):
        """Whether an update is that of an algorithm's phase of exploration."""
        return False

    def autocast(self):
        """Within it, large products take the configured precision. It ends before an optimiser steps, since it
        keeps copies of the weights."""
        reduced = self.operation.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16) if reduced else nullcontext()

    # Dynamics learning: Equation 10, with the recurrent state-space model of Section 4

    def dynamics_learning(self, batch):
        """One gradient step of the world model.

        Returns the posterior states (B, T, ·) and the embeddings (B, T, E) from before it, without
        gradient, and the metrics.
        """
        batch = self.normalize(batch)
        with self.autocast():
            embedding = self.model.encoder(batch.observation)
            prior, posterior = self.model.rssm.observe(embedding, batch.action, batch.is_first)
            losses = self.model_losses(batch, prior, posterior)
        loss = losses["loss/reconstruction"] + losses["loss/reward"]
        loss = loss + self.config.kl_divergence_scale * losses["loss/kl"].clamp(min=self.config.free_nats)
        loss = loss + self.config.continue_scale * losses["loss/continue"]
        norm = self.model_optimizer.step(loss)
        entropies = {
            "latent/prior_entropy": prior.distribution.entropy().mean(),
            "latent/posterior_entropy": posterior.distribution.entropy().mean(),
        }
        metrics = {"loss/model": loss, "grad_norm/model": norm} | losses | entropies
        return posterior.detach(), embedding.detach(), metrics

    def model_losses(self, batch, prior, posterior):
        """The terms of the model loss, unweighted: means over the batch of negative log-likelihoods and of the KL."""
        feature, goes_on = posterior.feature, torch.zeros((), device=self.device)
        if self.model.continue_model:
            goes_on = self.model.continue_model(feature).log_prob(1 - batch.is_terminal).mean()
        return {
            "loss/reconstruction": -self.model.decoder(feature).log_prob(batch.observation).mean(),
            "loss/reward": self.reward_loss(feature, batch.reward),
            "loss/continue": -goes_on,
            "loss/kl": kl_divergence(posterior.distribution, prior.distribution).mean(),
        }

    def reward_loss(self, feature, reward):
        """The negative log-likelihood of the rewards (B, T) received on arriving at states with these features."""
        return -self.model.reward_model(feature).log_prob(reward).mean()

    # Behavior learning: Section 3

    def imagination_start(self, batch, posterior):
        """Every posterior state of the batch, flattened to (N, ·), and its weight (N,): 0 where the task ended."""
        return posterior.flatten(), 1 - batch.is_terminal.flatten()

    def behavior_learning(self, behavior, start, start_weight, reward_function):
        """One gradient step of an actor (Equation 7) and of its critic (Equation 8). Returns the metrics.

        start: states (N, ·) to imagine from. start_weight: (N,), 0 where the task ended, so that what
        is imagined after the end does not count, else 1. reward_function: Imagination → rewards
        (N, H), received on arriving at s_1 … s_H.

        Returns and weights belong to s_1 … s_{H-1}; s_H only bootstraps. The critic runs once for both:
        the actor's gradient goes through its values, its own stops at its parameters.
        """
        with self.autocast():
            imagination = self.imagine(behavior.actor, start)
            feature = imagination.feature[:, 1:]  # s_1 … s_H
            reward, prediction = reward_function(imagination), behavior.critic(feature)
            value = prediction.mean
            discount = self.imagined_discount(feature)
            returns = lambda_return(
                reward[:, :-1], value[:, :-1], discount[:, :-1], bootstrap=value[:, -1], lambda_=self.config.lambda_
            )
            weight = torch.cat([start_weight[:, None], discount[:, :-2]], 1).cumprod(1).detach()
            actor_loss = -(weight * returns).mean()
            critic_loss = -(weight * prediction[:, :-1].log_prob(returns.detach())).mean()
        return {
            "grad_norm/actor": behavior.actor_optimizer.step(actor_loss, retain_graph=True),
            "grad_norm/critic": behavior.critic_optimizer.step(critic_loss),
            "loss/actor": actor_loss,
            "loss/critic": critic_loss,
            "behavior/entropy": imagination.entropy,
            "behavior/imagined_return": returns.mean(),
            "behavior/reward": reward.mean(),
            "behavior/value": value.mean(),
        }

    def imagine(self, actor, start):
        """Follow the actor from `start` (N, ·) through the prior for H steps, differentiably in its actions."""
        state, states, actions, entropies = start, [start], [], []
        for _ in range(self.config.horizon_length):
            distribution = actor(state.feature.detach())
            action = distribution.rsample()
            state = self.model.rssm.imagine_step(state, action)
            states.append(state)
            actions.append(action)
            entropies.append(distribution.entropy().mean())
        return Imagination(stack(states).feature, torch.stack(actions, 1), torch.stack(entropies).mean())

    def predicted_reward(self, imagination):
        """What the reward model expects on arriving at s_1 … s_H, (N, H)."""
        return self.model.reward_model(imagination.feature[:, 1:]).mean

    def imagined_discount(self, feature):
        """γ, times the probability that the task goes on where that is learned: (N, H, F) → (N, H)."""
        if self.model.continue_model:
            return self.config.discount * self.model.continue_model(feature).mean
        return torch.full(feature.shape[:-1], self.config.discount, device=self.device)

    # Environment interaction

    def make_policy(self, actor, exploration_noise):
        """How `actor` plays an episode; exploration_noise None: to be evaluated."""
        return Policy(self.model, actor, self.pixel_norm, exploration_noise, self.device)

    def collection_policy(self, env):
        """What collects: samples of the actor, with exploration noise."""
        return self.make_policy(self.behavior.actor, self.config.exploration_noise)

    def environment_interaction(self, env, policy, episodes):
        """Play episodes into the replay."""
        self.progress.phase("collecting")
        with one_thread():
            for episode in run_episodes(env, policy, episodes):
                self.store(episode)

    def store(self, episode):
        """Play an episode, step by step, into the replay."""
        episode_return = length = 0
        for step in episode:
            self.buffer.add(step)
            episode_return += step.reward
            length += step.env_steps
            self.progress.stepped(step.env_steps)
        self.env_steps += length
        self.progress.finished(episode_return)
        self.log({"train/return": episode_return, "train/length": length})

    def evaluate(self, evaluator, video=False):
        """Start `num_evaluate` episodes under the mode of the behaviour's actor, without noise. One evaluation at a
        time: the one before is waited for."""
        self.progress.phase("evaluating")
        self.report_evaluation(evaluator.result())
        weights = {"model": self.model.state_dict(), "actor": self.behavior.actor.state_dict()}
        evaluator.start(weights, self.iteration, self.env_steps, self.config.num_evaluate, film=bool(video))
        if video:
            self.show_prediction()

    # Reporting, saving

    def state_dict(self):
        """All that learns and counts, between two iterations."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "evaluation_average": self.evaluation_average.state_dict(),
            "iteration": self.iteration,
            "env_steps": self.env_steps,
        }

    def load_state_dict(self, state):
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
            self.optimizers[name].load_state_dict(state["optimizers"][name])
        self.evaluation_average.load_state_dict(state["evaluation_average"])
        self.iteration, self.env_steps = state["iteration"], state["env_steps"]

    def log(self, values):
        self.logger.scalars(values, self.env_steps)

    def report_evaluation(self, evaluation):
        """Log an `Evaluation` at the env steps at which it was started; None: there is none to log."""
        if evaluation:
            mean = sum(evaluation.returns) / len(evaluation.returns)
            scalars = {"eval/return": mean, "eval/return_ema20": self.evaluation_average.add(mean)}
            self.logger.scalars(scalars, evaluation.env_steps)
            if evaluation.frames is not None:
                self.logger.video("evaluation/episode", evaluation.frames, evaluation.env_steps)

    def show_prediction(self):
        """An open-loop prediction of pixels, as a video. Its random numbers are its own, as an evaluation's are."""
        with own_randomness(self.operation.seed, self.iteration):
            batch = self.sample(np.random.default_rng((self.operation.seed, self.iteration)))
            frames = prediction_video(self.model, self.normalize(batch), self.pixel_norm)
        if frames is not None:
            self.logger.video("prediction/open_loop", frames, self.env_steps, frames_per_second=5)
