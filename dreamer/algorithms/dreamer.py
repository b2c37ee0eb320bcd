"""Dreamer: the equations of "Dream to Control". When it learns, collects and is evaluated, `trainer.py` says.

What the later versions change stands in `dreamer_v2.py` and `dreamer_v3.py`; what can be chosen in any version, in
`behavior_parts.py`. Shapes: B batch, T time (dim 1), H horizon, N = B·T, A action size, F feature size.
"""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch.distributions import kl_divergence

from dreamer import ranks
from dreamer.algorithms.algorithm import Algorithm, without_gradient
from dreamer.algorithms.behavior_parts import objective
from dreamer.algorithms.policy import Policy
from dreamer.optim import make_optimizer


class Dreamer(Algorithm):
    """A world model, and a behaviour that learns in its imagination.

    config: the sub-tree `parameters.dreamer`. model: a WorldModel, behavior: a Behavior, both on the device to learn
    on. autocast: makes the context in which large products take the configured precision; it ends before an
    optimiser steps, since it keeps copies of the weights.
    """

    first_reward = 1  # the reward that behaviour needs first is that on arriving at s_1

    def __init__(self, config, model, behavior, autocast=nullcontext):
        self.config, self.model, self.behavior, self.autocast = config, model, behavior, autocast
        self.model_optimizer = make_optimizer(config, model, config.model_learning_rate)
        self.networks = {"model": model, **behavior.networks}
        self.optimizers = {"model": self.model_optimizer, **behavior.optimizers}
        self.actor = behavior.actor

    def update(self, batch):
        posterior, _, metrics = self.learn(batch)
        return without_gradient(metrics), posterior.feature

    def learn(self, batch, reward_gradient=True):
        """One gradient step each of the world model, the actor and the critic, one after the other.

        reward_gradient: whether rewards shape more than the reward model. Returns the posterior states (B, T, ·) and
        the embeddings (B, T, E) from before it, without gradient, and the metrics.
        """
        posterior, embedding, metrics = self.dynamics_learning(batch, reward_gradient)
        metrics |= self.behavior.learn(self.model, *imagination_start(batch, posterior), self.predicted_reward)
        return posterior, embedding, metrics

    def collector(self, env):
        """Samples of the actor, with exploration noise."""
        return Policy(self.model, self.actor, self.config.exploration_noise, self.config.replay_context)

    # Dynamics learning: Equation 10, with the recurrent state-space model of Section 4

    def dynamics_learning(self, batch, reward_gradient=True):
        """One gradient step of the world model. Returns posterior, embeddings and metrics, as `learn` does."""
        with self.autocast():
            loss, posterior, embedding, metrics = self.model_loss(batch, reward_gradient)
        metrics["grad_norm/model"] = self.model_optimizer.step(loss)
        return posterior.detach(), embedding.detach(), metrics

    def model_loss(self, batch, reward_gradient=True):
        """The world model's loss, the posterior states, the embeddings and the metrics."""
        observation = self.model.normalize(batch.observation)
        embedding = self.model.encoder(observation)
        prior, posterior = self.model.rssm.observe(embedding, batch.action, batch.is_first, batch.context)
        losses = self.model_losses(batch, observation, posterior, reward_gradient)
        kl_loss, kl = self.kl_loss(posterior, prior)
        loss = losses["loss/reconstruction"] + losses["loss/reward"] + kl_loss
        loss = loss + self.config.continue_scale * losses["loss/continue"]
        metrics = {
            "loss/model": loss,
            **losses,
            "loss/kl": kl,
            "latent/prior_entropy": prior.distribution.entropy().mean(),
            "latent/posterior_entropy": posterior.distribution.entropy().mean(),
        }
        return loss, posterior, embedding, metrics

    def model_losses(self, batch, observation, posterior, reward_gradient):
        """Negative log-likelihoods, means over the batch. The reward is that received on arriving."""
        feature, model = posterior.feature, self.model
        reward_feature = feature if reward_gradient else feature.detach()
        reward = batch.reward.tanh() if self.config.reward_transform == "tanh" else batch.reward
        goes_on = torch.zeros((), device=feature.device)
        if model.continue_model:
            target = (1 - batch.is_terminal) * (self.config.discount if self.config.discount_in_continue else 1)
            goes_on = model.continue_model(feature).log_prob(target).mean()
        return {
            "loss/reconstruction": -model.decoder(feature).log_prob(observation).mean(),
            "loss/reward": -model.reward_model(reward_feature).log_prob(reward).mean(),
            "loss/continue": -goes_on,
        }

    def kl_loss(self, posterior, prior):
        """KL(posterior || prior), at least the free nats, times its scale; and its plain mean.

        With scales for either side (DreamerV2's KL balancing) it is two losses of the same value: one moves the prior
        alone, the other the posterior.
        """
        config = self.config
        kl = kl_divergence(posterior.distribution, prior.distribution)
        if config.kl_dynamics_scale is None:
            loss = self.above_free_nats(kl)
        else:
            of_prior = kl_divergence(posterior.detach().distribution, prior.distribution)
            of_posterior = kl_divergence(posterior.distribution, prior.detach().distribution)
            loss = config.kl_dynamics_scale * self.above_free_nats(of_prior)
            loss = loss + config.kl_representation_scale * self.above_free_nats(of_posterior)
        return config.kl_divergence_scale * loss, kl.mean()

    def above_free_nats(self, kl):
        """The mean of (B, T), clamped after averaging, or (DreamerV3) before."""
        if self.config.free_nats_per_step:
            return kl.clamp(min=self.config.free_nats).mean()
        return ranks.mean(kl.mean()).clamp(min=self.config.free_nats)

    def predicted_reward(self, imagination):
        """What the reward model expects on arriving at s_1 … s_H, (N, H); in DreamerV2 at s_0, too, (N, H + 1)."""
        return self.model.reward_model(imagination.feature[:, self.first_reward :]).mean


class Imagination(NamedTuple):
    """Trajectories imagined from N states over H steps.

    index       0     1     …    H
    feature    s_0   s_1    …   s_H     s_0 is where imagination starts, a posterior of the replay
    action           a_1    …   a_H     a_τ leads from s_{τ-1} to s_τ; `action[:, τ - 1]`
    """

    feature: torch.Tensor  # (N, H + 1, F)
    action: torch.Tensor  # (N, H, A)
    policy: torch.Tensor  # (N, H, ·), the actor's output of which each action was drawn


class Targets(NamedTuple):
    """What actor and critic learn from. Weights have no gradient."""

    returns: torch.Tensor  # (N, K), those that the actions a_1 … a_K are to raise
    baseline: torch.Tensor  # (N, K), what was expected before they were taken
    weight: torch.Tensor  # (N, K), of each
    critic_returns: torch.Tensor  # (N, C), those that the critic is to predict
    critic_weight: torch.Tensor  # (N, C)
    critic_first: int  # the index of the first state whose value they are


def imagination_start(batch, posterior):
    """Every posterior state of the batch, flattened to (N, ·), and (N,) whether the task had ended there."""
    return posterior.flatten(), batch.is_terminal.flatten()


class Behavior:
    """An actor, a critic and their optimisers: Section 3. Which reward they learn from is not its business.

    prefix: of their names in a checkpoint. slow_critic: a `SlowCritic`, return_scale: a `ReturnScale`, or None. The
    rest: as for Dreamer.
    """

    def __init__(self, config, actor, critic, autocast=nullcontext, prefix="", slow_critic=None, return_scale=None):
        self.config, self.actor, self.critic, self.autocast = config, actor, critic, autocast
        self.slow_critic, self.return_scale = slow_critic, return_scale
        self.objective = objective(config.actor_gradient, actor.discrete)
        self.actor_optimizer = make_optimizer(config, actor, config.actor_learning_rate)
        self.critic_optimizer = make_optimizer(config, critic, config.critic_learning_rate)
        networks = {"actor": actor, "critic": critic, "slow_critic": slow_critic, "return_scale": return_scale}
        self.networks = {f"{prefix}{name}": network for name, network in networks.items() if network}
        self.optimizers = {f"{prefix}actor": self.actor_optimizer, f"{prefix}critic": self.critic_optimizer}

    def learn(self, model, start, is_terminal, reward_function):
        """One gradient step of the actor and of the critic in the imagination of `model`. Returns the metrics.

        start, is_terminal: as from `imagination_start`. reward_function: Imagination → rewards (N, H), received on
        arriving at s_1 … s_H, or (N, H + 1) of s_0, too.
        """
        with self.autocast():
            actor_loss, critic_loss, _, metrics = self.losses(model, start, is_terminal, reward_function)
        metrics["grad_norm/actor"] = self.actor_optimizer.step(actor_loss, retain_graph=True)
        metrics["grad_norm/critic"] = self.critic_optimizer.step(critic_loss)
        if self.slow_critic:
            self.slow_critic.follow(self.critic)
        return metrics

    def losses(self, model, start, is_terminal, reward_function):
        """The losses of actor and critic, their `Targets`, and the metrics.

        The critic runs once for both losses: the actor's gradient goes through its values, its own stops at its
        parameters.
        """
        imagination = self.imagine(model.rssm, start)
        feature = imagination.feature
        prediction = self.critic(feature)
        with torch.set_grad_enabled(self.objective.differentiable):
            reward, discount = reward_function(imagination), self.discount(model, feature)
            slow = self.slow_critic(feature).mean if self.slow_critic else None
            value = slow if self.config.slow_critic == "target" else prediction.mean
            targets = self.targets(reward, value, discount, is_terminal)
        policy = self.actor.policy(imagination.policy[:, : targets.returns.shape[1]])
        entropy = policy.entropy()
        actor_loss = self.actor_loss(policy, imagination.action, entropy, targets)
        critic_loss = self.critic_loss(prediction, slow, targets)
        return (
            actor_loss,
            critic_loss,
            targets,
            {
                "loss/actor": actor_loss,
                "loss/critic": critic_loss,
                "behavior/entropy": entropy.mean(),
                "behavior/imagined_return": targets.returns.mean(),
                "behavior/reward": reward.mean(),
                "behavior/value": value.mean(),
            },
        )

    def targets(self, reward, value, discount, is_terminal):
        """`Targets`, of s_1 … s_{H-1}; s_H only bootstraps. What is imagined after the task's end does not count.

        reward: (N, H), value, discount: (N, H + 1), is_terminal: (N,).
        """
        returns = lambda_return(reward[:, :-1], discount[:, 1:-1], value[:, 2:], self.config.lambda_)
        weight = torch.cat([1 - is_terminal[:, None], discount[:, 1:-2]], 1).cumprod(1).detach()
        return Targets(returns, value[:, :-2], weight, returns, weight, critic_first=1)

    def actor_loss(self, policy, action, entropy, targets):
        """Equation 7, by gradients through the dynamics. The other objectives, and the entropy, came later."""
        scale = self.return_scale(targets.returns.detach()) if self.return_scale else 1
        objective = self.objective(policy, action, targets, scale)
        if self.config.entropy_scale:
            objective = objective + self.config.entropy_scale * entropy
        return -(targets.weight * objective).mean()

    def critic_loss(self, prediction, slow, targets):
        """Equation 8. prediction, slow: of s_0 … s_H; the slow critic's values, if there are any."""
        first, count = targets.critic_first, targets.critic_returns.shape[1]
        states = slice(first, first + count)
        prediction = prediction[:, states]
        log_prob = prediction.log_prob(targets.critic_returns.detach())
        if self.config.slow_critic == "regularizer":
            log_prob = log_prob + prediction.log_prob(slow[:, states].detach())
        return -(targets.critic_weight * log_prob).mean()

    def discount(self, model, feature):
        """γ, times the probability that the task goes on where that is learned: (N, H + 1, F) → (N, H + 1)."""
        if not model.continue_model:
            return torch.full(feature.shape[:-1], self.config.discount, device=feature.device)
        goes_on = model.continue_model(feature).mean
        return goes_on if self.config.discount_in_continue else self.config.discount * goes_on

    def imagine(self, rssm, start):
        """Follow the actor from `start` (N, ·) through the prior for H steps, differentiably in its actions if the
        objective asks for that."""
        state, features, actions, outputs = start, [start.feature], [], []
        with torch.set_grad_enabled(self.objective.differentiable):
            for _ in range(self.config.horizon_length):
                outputs.append(self.actor.network(features[-1].detach()))
                actions.append(self.actor.policy(outputs[-1]).rsample())
                state = rssm.imagine_step(state, actions[-1])
                features.append(state.feature)
        features, actions, outputs = (torch.stack(parts, 1) for parts in (features, actions, outputs))
        if not self.objective.differentiable:  # the same once more, of all steps at once, for the actor's gradient
            outputs = self.actor.network(features[:, :-1])
        return Imagination(features, actions, outputs)


def lambda_return(reward, discount, next_value, lambda_):
    """V_λ, Equation 6, by its recursion from the last imagined state backwards:

        V_λ(s_τ) = r_τ + γ_τ [ (1 - λ) v(s_{τ+1}) + λ V_λ(s_{τ+1}) ],    V_λ(s_H) = v(s_H)

    reward, discount, next_value: (N, K), of K steps. The discount γ_τ weighs everything after the reward r_τ; which
    state the reward belongs to is for the caller to say. lambda_: a number, or (N, K). Returns (N, K).
    """
    lambda_ = lambda_ * torch.ones_like(reward)
    returns, following = [], next_value[:, -1]
    for t in reversed(range(reward.shape[1])):
        mixed = torch.lerp(next_value[:, t], following, lambda_[:, t])
        following = reward[:, t] + discount[:, t] * mixed
        returns.append(following)
    return torch.stack(returns[::-1], 1)
