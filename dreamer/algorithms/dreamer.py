"""Dreamer: the equations of "Dream to Control". When it learns, collects and is evaluated, `trainer.py` says.

Shapes: B batch, T time (dim 1), H horizon, N = B·T, A action size, F feature size.
"""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch.distributions import kl_divergence

from dreamer.algorithms.algorithm import Algorithm
from dreamer.algorithms.policy import Policy
from dreamer.modules.rssm import stack
from dreamer.optim import ClippedAdam


class Dreamer(Algorithm):
    """A world model, and a behaviour that learns in its imagination.

    config: the sub-tree `parameters.dreamer`. model: a WorldModel, behavior: a Behavior, both on the device to learn
    on. autocast: makes the context in which large products take the configured precision; it ends before an
    optimiser steps, since it keeps copies of the weights.
    """

    def __init__(self, config, model, behavior, autocast=nullcontext):
        self.config, self.model, self.behavior, self.autocast = config, model, behavior, autocast
        self.model_optimizer = make_optimizer(config, model, config.model_learning_rate)
        self.networks = {"model": model, **behavior.networks}
        self.optimizers = {"model": self.model_optimizer, **behavior.optimizers}
        self.actor = behavior.actor

    def update(self, batch):
        """One gradient step each of the world model, the actor and the critic."""
        posterior, _, metrics = self.dynamics_learning(batch)
        start = imagination_start(batch, posterior)
        return metrics | self.behavior.learn(self.model, *start, self.predicted_reward), posterior.feature

    def collector(self, env):
        """Samples of the actor, with exploration noise."""
        return Policy(self.model, self.actor, self.config.exploration_noise, self.config.replay_context)

    # Dynamics learning: Equation 10, with the recurrent state-space model of Section 4

    def dynamics_learning(self, batch, reward_gradient=True):
        """One gradient step of the world model. reward_gradient: whether rewards shape more than the reward model.

        Returns the posterior states (B, T, ·) and the embeddings (B, T, E) from before it, without
        gradient, and the metrics.
        """
        observation = self.model.normalize(batch.observation)
        with self.autocast():
            embedding = self.model.encoder(observation)
            prior, posterior = self.model.rssm.observe(embedding, batch.action, batch.is_first)
            losses = self.model_losses(batch, observation, posterior, reward_gradient)
            kl_loss, kl = self.kl_loss(posterior, prior)
        loss = losses["loss/reconstruction"] + losses["loss/reward"] + kl_loss
        loss = loss + self.config.continue_scale * losses["loss/continue"]
        metrics = {
            "loss/model": loss,
            "grad_norm/model": self.model_optimizer.step(loss),
            **losses,
            "loss/kl": kl,
            "latent/prior_entropy": prior.distribution.entropy().mean(),
            "latent/posterior_entropy": posterior.distribution.entropy().mean(),
        }
        return posterior.detach(), embedding.detach(), metrics

    def model_losses(self, batch, observation, posterior, reward_gradient):
        """Of the heads: negative log-likelihoods, means over the batch. The reward is that received on arriving."""
        feature, model = posterior.feature, self.model
        reward_feature = feature if reward_gradient else feature.detach()
        goes_on = torch.zeros((), device=feature.device)
        if model.continue_model:
            goes_on = model.continue_model(feature).log_prob(1 - batch.is_terminal).mean()
        return {
            "loss/reconstruction": -model.decoder(feature).log_prob(observation).mean(),
            "loss/reward": -model.reward_model(reward_feature).log_prob(batch.reward).mean(),
            "loss/continue": -goes_on,
        }

    def kl_loss(self, posterior, prior):
        """β max(free nats, KL), with the KL of the posteriors from their priors, averaged over the batch. Returns it
        and the KL."""
        kl = kl_divergence(posterior.distribution, prior.distribution).mean()
        return self.config.kl_divergence_scale * kl.clamp(min=self.config.free_nats), kl

    def predicted_reward(self, imagination):
        """What the reward model expects on arriving at s_1 … s_H, (N, H)."""
        return self.model.reward_model(imagination.feature[:, 1:]).mean


class Imagination(NamedTuple):
    """Trajectories imagined from N states over H steps.

    index       0     1     …    H
    feature    s_0   s_1    …   s_H     s_0 is where imagination starts, a posterior of the replay
    action           a_1    …   a_H     a_τ leads from s_{τ-1} to s_τ; `action[:, τ - 1]`
    """

    feature: torch.Tensor  # (N, H + 1, F)
    action: torch.Tensor  # (N, H, A)
    entropy: torch.Tensor  # scalar: the mean of the actor's, in nats


def imagination_start(batch, posterior):
    """Every posterior state of the batch, flattened to (N, ·), and its weight (N,): 0 where the task ended, so that
    what is imagined after the end does not count."""
    return posterior.flatten(), 1 - batch.is_terminal.flatten()


class Behavior:
    """An actor, a critic and their optimisers: Section 3. Which reward they learn from is not its business.

    prefix: of their names in a checkpoint. The rest: as for Dreamer.
    """

    def __init__(self, config, actor, critic, autocast=nullcontext, prefix=""):
        self.config, self.actor, self.critic, self.autocast = config, actor, critic, autocast
        self.actor_optimizer = make_optimizer(config, actor, config.actor_learning_rate)
        self.critic_optimizer = make_optimizer(config, critic, config.critic_learning_rate)
        self.networks = {f"{prefix}actor": actor, f"{prefix}critic": critic}
        self.optimizers = {f"{prefix}actor": self.actor_optimizer, f"{prefix}critic": self.critic_optimizer}

    def learn(self, model, start, start_weight, reward_function):
        """One gradient step of the actor and of the critic in the imagination of `model`. Returns the metrics.

        start, start_weight: as from `imagination_start`. reward_function: Imagination → rewards (N, H), received on
        arriving at s_1 … s_H.

        Returns and weights belong to s_1 … s_{H-1}; s_H only bootstraps. The critic runs once for both losses: the
        actor's gradient goes through its values, its own stops at its parameters.
        """
        with self.autocast():
            imagination = self.imagine(model.rssm, start)
            feature = imagination.feature[:, 1:]  # s_1 … s_H
            reward, prediction = reward_function(imagination), self.critic(feature)
            value, discount = prediction.mean, self.discount(model, feature)
            returns = lambda_return(
                reward[:, :-1], value[:, :-1], discount[:, :-1], bootstrap=value[:, -1], lambda_=self.config.lambda_
            )
            weight = torch.cat([start_weight[:, None], discount[:, :-2]], 1).cumprod(1).detach()
            actor_loss = self.actor_loss(imagination, returns, weight)
            critic_loss = self.critic_loss(prediction[:, :-1], returns, weight)
        return {
            "grad_norm/actor": self.actor_optimizer.step(actor_loss, retain_graph=True),
            "grad_norm/critic": self.critic_optimizer.step(critic_loss),
            "loss/actor": actor_loss,
            "loss/critic": critic_loss,
            "behavior/entropy": imagination.entropy,
            "behavior/imagined_return": returns.mean(),
            "behavior/reward": reward.mean(),
            "behavior/value": value.mean(),
        }

    def actor_loss(self, imagination, returns, weight):
        """Equation 7, by gradients through the dynamics. returns, weight: (N, H-1)."""
        return -(weight * returns).mean()

    def critic_loss(self, prediction, returns, weight):
        """Equation 8. prediction: of s_1 … s_{H-1}."""
        return -(weight * prediction.log_prob(returns.detach())).mean()

    def discount(self, model, feature):
        """γ, times the probability that the task goes on where that is learned: (N, H, F) → (N, H)."""
        if model.continue_model:
            return self.config.discount * model.continue_model(feature).mean
        return torch.full(feature.shape[:-1], self.config.discount, device=feature.device)

    def imagine(self, rssm, start):
        """Follow the actor from `start` (N, ·) through the prior for H steps, differentiably in its actions."""
        state, states, actions, entropies = start, [start], [], []
        for _ in range(self.config.horizon_length):
            distribution = self.actor(state.feature.detach())
            action = distribution.rsample()
            state = rssm.imagine_step(state, action)
            states.append(state)
            actions.append(action)
            entropies.append(distribution.entropy().mean())
        return Imagination(stack(states).feature, torch.stack(actions, 1), torch.stack(entropies).mean())


def lambda_return(reward, value, discount, bootstrap, lambda_):
    """V_λ, Equation 6, by its recursion from the last imagined state backwards:

        V_λ(s_τ) = r_τ + γ_τ [ (1 - λ) v(s_{τ+1}) + λ V_λ(s_{τ+1}) ],    V_λ(s_H) = v(s_H)

    reward, value, discount: (N, H-1), of the states s_1 … s_{H-1}; the reward r_τ is received on
    arriving at s_τ, the discount γ_τ weighs everything after s_τ. bootstrap: (N,), v(s_H).
    Returns (N, H-1).
    """
    next_value = torch.cat([value[:, 1:], bootstrap[:, None]], 1)
    returns, following = [], bootstrap
    for t in reversed(range(reward.shape[1])):
        mixed = (1 - lambda_) * next_value[:, t] + lambda_ * following
        following = reward[:, t] + discount[:, t] * mixed
        returns.append(following)
    return torch.stack(returns[::-1], 1)


def make_optimizer(config, network, learning_rate):
    """The paper's: Adam with its gradient clipped. config: the sub-tree `parameters.dreamer`."""
    return ClippedAdam(network, learning_rate, config.adam_epsilon, config.clip_grad, config.grad_norm_type)
