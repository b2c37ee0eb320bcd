"""The interface of an algorithm to the trainer, to checkpoints and evaluations, and what the versions share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from dreamer.algorithms import losses
from dreamer.algorithms.actor_critic import ActorCritic
from dreamer.algorithms.losses import Imagination, imagine, imagine_step
from dreamer.algorithms.optim import Optimizer, make_optimizer
from dreamer.algorithms.policy import Policy
from dreamer.config.load import Config
from dreamer.modules.actor import Actor
from dreamer.modules.loading import load_fitting
from dreamer.modules.rssm import State
from dreamer.modules.world_model import WorldModel
from dreamer.replay.step import Batch, Step

Metrics = dict[str, torch.Tensor]  # {tag: scalar}
RewardFunction = Callable[[Imagination], torch.Tensor]  # returns the rewards received on arriving at s_1 … s_H, (N, H)


class Algorithm:
    """Learns from windows of the replay, and acts."""

    networks: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    model: WorldModel
    actor: Actor  # acts in evaluations

    def update(self, batch: Batch, updates: int | torch.Tensor = 0) -> tuple[Metrics, torch.Tensor]:
        """Learn from a batch once.

        batch: windows (B, T, ·) on the device. updates: the number of updates made before this one, for schedules (no
        version here has one). In training it is a scalar tensor on the device, since a CUDA graph would keep a Python
        number as a constant. Returns the metrics and the latent states to store with the windows' steps,
        (B, T, F + M), all without gradient.
        """
        raise NotImplementedError

    def collection_policy(self, env: Any) -> Callable[[Step], np.ndarray]:
        """Return the policy that collects in `env`, a function from a `Step` to an action.

        Called once; the policy is kept for all iterations (`training/collection_policies.py`). For a schedule of its
        exploration noise, see `Policy`.
        """
        raise NotImplementedError

    def active(self, env_steps: int) -> Algorithm:
        """Return the algorithm that learns and collects after `env_steps`: this one, or a part of it."""
        return self

    @property
    def device(self) -> torch.device:
        """The device of the world model."""
        return next(self.model.parameters()).device

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all networks and optimisers."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Return to a saved state. Raises ConfigError if its networks have other sizes."""
        for name, network in self.networks.items():
            load_fitting(network, state["networks"][name], f"the {name} of this run")
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])


class DreamerAlgorithm(Algorithm):
    """A world model, and an actor with its critic that learn in its imagination. Each version spells out how."""

    imagine_step = staticmethod(imagine_step)  # an attribute, so that `compiled.py` can replace it
    # Methods that `compiled.py` compiles, each to one graph. A value that changes between updates must be a tensor.
    compilable: tuple[str, ...] = (
        "model_loss_from_states",
        "predicted_reward",
        "targets",
        "behavior_losses_from_returns",
    )

    def __init__(
        self,
        config: Config,
        model: WorldModel,
        actor_critic: ActorCritic,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ):
        """config: the sub-tree `parameters.dreamer`. autocast: makes the context in which large products are computed
        in the configured precision. It must end before an optimiser steps, since it keeps copies of the weights.
        """
        self.config = SimpleNamespace(**config)  # plain values, which a compiler can read
        self.model, self.actor_critic, self.autocast = model, actor_critic, autocast
        self.actor = actor_critic.actor
        self.model_optimizer = make_optimizer(config, model, config.model_learning_rate)
        self.networks = {"model": model, **actor_critic.networks}
        self.optimizers = {"model": self.model_optimizer, **actor_critic.optimizers}

    def update(self, batch: Batch, updates: int | torch.Tensor = 0) -> tuple[Metrics, torch.Tensor]:
        posterior, _, metrics = self.learn(batch, updates)
        return without_gradient(metrics), posterior.stored

    def learn(
        self, batch: Batch, updates: int | torch.Tensor = 0, reward_gradient: bool = True
    ) -> tuple[State, torch.Tensor, Metrics]:
        """Make one gradient step of the world model, of the actor and of the critic.

        batch, updates: as for `update`. reward_gradient: whether rewards shape the latent states, too; False trains
        only the reward model with them (Plan2Explore). Returns the posterior states (B, T, ·) and the embeddings
        (B, T, E) that the step was computed from, without gradient, and the metrics.
        """
        raise NotImplementedError

    def num_start_steps(self, batch: Batch) -> int:
        """Return the number of last steps of each window from which imagination starts."""
        return self.config.imagine_last or batch.reward.shape[1]

    def start_states(self, posterior: State, batch: Batch) -> tuple[State, torch.Tensor]:
        """Return the states (N, ·) that imagination starts from, and 1 where the task had ended there, (N,).

        posterior: (B, T, ·), of the steps of the batch.
        """
        length = self.num_start_steps(batch)
        return posterior.last_steps(length).flatten(), batch.last_steps(length).is_terminal.flatten()

    def imagine(self, actor_critic: ActorCritic, start: State) -> Imagination:
        """Follow an actor through the prior for `horizon_length` steps, from states (N, ·)."""
        return imagine(
            self.model.rssm,
            actor_critic.actor,
            start,
            self.config.horizon_length,
            actor_critic.through_dynamics,
            self.imagine_step,
            actor_critic.scan,
        )

    def learn_behavior(
        self, actor_critic: ActorCritic, start: State, is_terminal: torch.Tensor, reward_function: RewardFunction
    ) -> Metrics:
        """Make one gradient step of an actor and one of its critic, in imagination. Return the metrics.

        start: states (N, ·) without gradient. is_terminal: (N,), 1 where the task had ended.
        """
        raise NotImplementedError

    def model_loss_from_states(
        self, prior: State, posterior: State, observation: Any, batch: Batch, reward_gradient: bool
    ) -> tuple[torch.Tensor, Metrics]:
        """Return the world model's loss, a scalar, from the states (B, T, ·) of a batch, and the metrics:

            -ln p(o_t | s_t) - ln p(r_t | s_t) + β KL(posterior || prior) - continue_scale · ln p(continue_t | s_t)

        β is `kl_divergence_scale`. All versions share this function, since the papers' losses differ in options alone:
        the two sides of the KL, its free nats, and the target of the continue model. Each version's `model_loss` names
        its paper's equation.

        observation: as the decoder sees it. reward_gradient: as for `learn`.
        """
        config, model = self.config, self.model
        feature = posterior.feature
        reward_feature = feature if reward_gradient else feature.detach()
        reward = batch.reward.tanh() if config.reward_transform == "tanh" else batch.reward
        continue_target = config.discount if config.discount_in_continue else 1
        continue_loss = losses.continue_loss(model.continue_model, feature, batch.is_terminal, continue_target)
        reconstruction = -model.decoder(feature).log_prob(observation).mean()
        reward_loss = -model.reward_model(reward_feature).log_prob(reward).mean()
        kl_loss, kl = losses.kl_loss(
            posterior,
            prior,
            free_nats=config.free_nats,
            free_nats_per_step=config.free_nats_per_step,
            dynamics_scale=config.kl_dynamics_scale,
            representation_scale=config.kl_representation_scale,
        )

        loss = reconstruction + reward_loss + config.kl_divergence_scale * kl_loss
        loss = loss + config.continue_scale * continue_loss
        metrics = {
            "loss/model": loss,
            "loss/reconstruction": reconstruction,
            "loss/reward": reward_loss,
            "loss/continue": continue_loss,
            "loss/kl": kl,
            "latent/prior_entropy": prior.distribution.entropy().mean(),
            "latent/posterior_entropy": posterior.distribution.entropy().mean(),
        }
        return loss, metrics

    def collection_policy(self, env: Any) -> Callable[[Step], np.ndarray]:
        return Policy(self.model, self.actor, self.config.exploration_noise, self.config.replay_context)


def without_gradient(metrics: Metrics) -> Metrics:
    """Return the metrics detached from their graph."""
    return {tag: value.detach() for tag, value in metrics.items()}
