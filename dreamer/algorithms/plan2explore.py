"""Plan2Explore (arXiv 2005.05960): a Dreamer, and beside it a second actor and critic that learn to explore.

Shapes: B batch, T time (dim 1), H horizon, N = B·T, K members, A action size, E embedding, F feature size.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.profiler import record_function

from dreamer import distributed
from dreamer.algorithms.actor_critic import ActorCritic
from dreamer.algorithms.algorithm import Algorithm, DreamerAlgorithm, Metrics, without_gradient
from dreamer.algorithms.losses import Imagination
from dreamer.algorithms.optim import Optimizer, make_optimizer
from dreamer.algorithms.policy import Policy, random_policy
from dreamer.config.load import Config
from dreamer.modules.ensemble import OneStepModel, disagreement
from dreamer.modules.rssm import State
from dreamer.replay.step import Batch, Step


class Novelty:
    """The interface of an intrinsic reward. It learns which states are new, and rewards the explorer for reaching them.

    `build.build_novelty` makes it.
    """

    networks: dict[str, nn.Module]  # by their names in a checkpoint
    optimizers: dict[str, Optimizer]

    def learn(self, batch: Batch, posterior: State, embedding: torch.Tensor) -> Metrics:
        """Make one gradient step on a batch. Return the metrics.

        posterior: the batch's states (B, T, ·). embedding: of its observations, (B, T, E). Both are without gradient.
        """
        raise NotImplementedError

    def reward(self, imagination: Imagination) -> torch.Tensor:
        """Return the intrinsic rewards received on arriving at s_1 … s_H, (N, H).

        It is a `RewardFunction` in place of `DreamerAlgorithm.predicted_reward`.
        """
        raise NotImplementedError


class Plan2Explore(Algorithm):
    """Two behaviours learn in the same world model, each from its own reward.

    The explorer is rewarded for novelty and collects. The task's actor learns from the predicted reward and acts only
    in evaluations (zero-shot). After `explore_env_steps` Dreamer learns and collects alone (few-shot).
    """

    def __init__(self, config: Config, dreamer: DreamerAlgorithm, novelty: Novelty, explorer: ActorCritic):
        """config: the sub-tree `parameters.plan2explore`. dreamer: the algorithm of the task, of any version."""
        self.config, self.dreamer, self.novelty, self.explorer = config, dreamer, novelty, explorer
        self.networks = dreamer.networks | novelty.networks | explorer.networks
        self.optimizers = dreamer.optimizers | novelty.optimizers | explorer.optimizers
        self.model, self.actor = dreamer.model, dreamer.actor

    def active(self, env_steps: int) -> Algorithm:
        limit = self.config.explore_env_steps
        return self if limit is None or env_steps < limit else self.dreamer

    def update(self, batch: Batch, updates: int | torch.Tensor = 0) -> tuple[Metrics, torch.Tensor]:
        """Make Dreamer's gradient steps, then one each of the novelty, the explorer's actor and its critic.

        By default rewards shape only the reward model, so that the world model does not depend on the task. Arguments
        and results as for `Algorithm.update`.
        """
        reward_gradient = self.config.reward_gradient_to_model
        posterior, embedding, metrics = self.dreamer.learn(batch, updates, reward_gradient)
        metrics |= self.novelty.learn(batch, posterior, embedding)
        start, is_terminal = self.dreamer.start_states(posterior, batch)
        explorer_metrics = self.dreamer.learn_behavior(self.explorer, start, is_terminal, self.novelty.reward)
        metrics["exploration/intrinsic_reward"] = explorer_metrics.pop("behavior/reward")
        metrics |= {tag.replace("/", "/exploration_"): value for tag, value in explorer_metrics.items()}
        return without_gradient(metrics), posterior.stored

    def collection_policy(self, env: Any) -> Callable[[Step], np.ndarray]:
        """Return the policy of the explorer with exploration noise or, as a baseline, uniformly random actions."""
        if self.config.explorer == "random":
            return random_policy(env)
        config = self.dreamer.config
        return Policy(self.model, self.explorer.actor, config.exploration_noise, config.replay_context)


class Disagreement(Novelty):
    """Rewards states about which the predictions of an ensemble of one-step models disagree (Section 3.1)."""

    def __init__(
        self,
        config: Config,
        dreamer_config: Config,
        one_step_model: OneStepModel,
        autocast: Callable[[], AbstractContextManager],
    ):
        """config: the sub-tree `parameters.plan2explore`. dreamer_config: `parameters.dreamer`, for the optimiser.

        autocast: as for `DreamerAlgorithm`.
        """
        self.config, self.one_step_model, self.autocast = config, one_step_model, autocast
        self.optimizer = make_optimizer(dreamer_config, one_step_model, config.one_step_model_learning_rate)
        self.networks = {"one_step_model": one_step_model}
        self.optimizers = {"one_step_model": self.optimizer}

    @record_function("novelty")
    def learn(self, batch: Batch, posterior: State, embedding: torch.Tensor) -> Metrics:
        """Train every member to predict the target at t + 1 from s_t and a_{t+1}, the action that leaves s_t.

        The first step of an episode is no target: no action predicts a reset. The loss is the sum over the members, so
        that each member's gradient is that of its own likelihood. Arguments and result as for `Novelty.learn`.
        """
        target = posterior.stochastic if self.config.target == "stochastic" else embedding
        is_target = 1 - batch.is_first[:, 1:]
        num_targets = distributed.mean(is_target.sum()).clamp(min=1 / distributed.count())
        with self.autocast():
            prediction = self.one_step_model(posterior.feature[:, :-1], batch.action[:, 1:])
        log_likelihood = (is_target * prediction.log_prob(target[:, 1:])).sum((1, 2)) / num_targets  # (K,)
        grad_norm = self.optimizer.step(-log_likelihood.sum())
        replay_disagreement = is_target * disagreement(prediction.mean.detach(), self.config.disagreement)
        return {
            "loss/one_step_model": -log_likelihood.mean(),
            "grad_norm/one_step_model": grad_norm,
            "exploration/disagreement_replay": replay_disagreement.sum() / num_targets,
        }

    @record_function("intrinsic reward")
    def reward(self, imagination: Imagination) -> torch.Tensor:
        """Return the scaled disagreement about where the action a_k leads from s_{k-1}, k = 1 … H: (N, H)."""
        state, action = imagination.feature[:, :-1], imagination.action
        if not self.config.disagreement_gradient:
            state, action = state.detach(), action.detach()
        reward = self.one_step_model.disagreement(state, action, self.config.disagreement)
        return self.config.intrinsic_reward_scale * reward
