"""DreamerV3, from "Mastering Diverse Domains through World Models" (arXiv 2301.04104, version 2, whose equations are
cited): one update, from top to bottom.

Its networks, two-hot heads, optimiser and return scale are options of every version: `configs/dreamer-v3.yml` sets
them. Only in this version all gradients are taken at the same weights, a return does not contain the reward of its own
state, and the critic also learns from replayed rewards.
Shapes: B batch, T time (dim 1), H horizon, N = B·T, A action size, E embedding, F feature size.
"""

import torch
from torch.profiler import record_function

from dreamer.algorithms import losses
from dreamer.algorithms.actor_critic import ActorCritic, Values
from dreamer.algorithms.algorithm import DreamerAlgorithm, Metrics, RewardFunction
from dreamer.algorithms.losses import Imagination, imagined_discount, lambda_return
from dreamer.algorithms.optim import step_together
from dreamer.modules.gradients import frozen
from dreamer.modules.rssm import State
from dreamer.replay.step import Batch


class DreamerV3(DreamerAlgorithm):
    """World model, actor and critic make their steps together, each down its own losses."""

    compilable = (*DreamerAlgorithm.compilable, "replay_critic_loss")

    def learn(
        self, batch: Batch, updates: int | torch.Tensor = 0, reward_gradient: bool = True
    ) -> tuple[State, torch.Tensor, Metrics]:
        actor_critic = self.actor_critic
        with self.autocast():
            model_loss, posterior, embedding, metrics = self.model_loss(batch, reward_gradient)
            start, is_terminal = self.start_states(posterior.detach(), batch)
            actor_loss, critic_loss, returns, behavior_metrics = self.behavior_losses(
                actor_critic, start, is_terminal, self.predicted_reward
            )
            loss = model_loss + actor_loss + critic_loss
            metrics |= behavior_metrics
            if self.config.replay_critic_scale:
                length = self.num_start_steps(batch)  # of each window, the last steps, where imagination started
                last_batch = batch.last_steps(length)
                feature = posterior.last_steps(length).feature
                bootstrap = returns[:, 0].unflatten(0, last_batch.reward.shape)  # R_0 of each imagined trajectory
                replay_critic_loss = self.replay_critic_loss(feature, bootstrap, last_batch)
                loss = loss + self.config.replay_critic_scale * replay_critic_loss
                metrics["loss/replay_critic"] = replay_critic_loss
        optimizers = self.model_optimizer, actor_critic.actor_optimizer, actor_critic.critic_optimizer
        model_norm, actor_norm, critic_norm = step_together(loss, optimizers)
        actor_critic.update_slow_critic()
        metrics |= {"grad_norm/model": model_norm, "grad_norm/actor": actor_norm, "grad_norm/critic": critic_norm}
        return posterior.detach(), embedding.detach(), metrics

    def learn_behavior(
        self, actor_critic: ActorCritic, start: State, is_terminal: torch.Tensor, reward_function: RewardFunction
    ) -> Metrics:
        with self.autocast():
            actor_loss, critic_loss, _, metrics = self.behavior_losses(
                actor_critic, start, is_terminal, reward_function
            )
        return metrics | actor_critic.step(actor_loss, critic_loss)

    @record_function("world model's loss")
    def model_loss(
        self, batch: Batch, reward_gradient: bool = True
    ) -> tuple[torch.Tensor, State, torch.Tensor, Metrics]:
        """Return the model's loss, Equations 2 and 3: predict observation, reward and continuation, keep posterior
        and prior close. `DreamerAlgorithm.model_loss_from_states` has the terms.

        State s_t has seen the action a_t that led to it and the observation o_t; it predicts the reward r_t received
        with them. Returns a scalar, the posterior states (B, T, ·), the embeddings (B, T, E) and the metrics.
        """
        observation, embedding = self.model.encode(batch.observation)
        prior, posterior = self.model.rssm.observe(embedding, batch.action, batch.is_first, batch.latent)
        loss, metrics = self.model_loss_from_states(prior, posterior, observation, batch, reward_gradient)
        return loss, posterior, embedding, metrics

    @record_function("behaviour's losses")
    def behavior_losses(
        self, actor_critic: ActorCritic, start: State, is_terminal: torch.Tensor, reward_function: RewardFunction
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Metrics]:
        """Return the losses of actor and critic, Equations 5 to 7: predict the imagined returns, and raise them.

        The action a_{k+1} is chosen at s_k and learns from the return R_k, which the critic's v(s_k) predicts.
        Arguments as for `learn_behavior`; is_terminal is not used, since the discount of s_0 is predicted. Returns two
        scalars, the returns R_0 … R_{H-1}, (N, H), and the metrics.
        """
        with frozen(self.model):  # the actor's gradient passes through the model, whose weights get none
            imagination = self.imagine(actor_critic, start)
            values = actor_critic.values(imagination.feature)
            with torch.set_grad_enabled(actor_critic.through_dynamics):
                reward = reward_function(imagination)
            returns, weight = self.targets(values, imagination.feature, reward)
        scale = actor_critic.scale(returns)
        actor_loss, critic_loss, metrics = self.behavior_losses_from_returns(
            imagination, actor_critic, values=values, reward=reward, returns=returns, weight=weight, scale=scale
        )
        return actor_loss, critic_loss, returns, metrics

    def targets(self, values: Values, feature: torch.Tensor, reward: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return λ-returns (Equation 5) and weights of imagined states (N, H + 1, F) with rewards r_1 … r_H, (N, H)."""
        config, continue_model = self.config, self.model.continue_model
        discount = imagined_discount(continue_model, feature, config.discount, config.discount_in_continue)
        return returns_and_weights(reward, values.value, discount, config.lambda_)

    def behavior_losses_from_returns(
        self,
        imagination: Imagination,
        actor_critic: ActorCritic,
        values: Values,
        reward: torch.Tensor,
        returns: torch.Tensor,
        weight: torch.Tensor,
        scale: float | torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, Metrics]:
        """Return the losses of actor and critic, scalars, and the metrics. scale: what returns are divided by."""
        value, slow_value, critic_output = values
        policy = imagination.policy(actor_critic.actor, returns.shape[1])
        actor_loss, entropy = losses.actor_loss(
            policy,
            imagination.action,
            returns,
            value[:, :-1],
            weight,
            actor_gradient=actor_critic.actor_gradient,
            entropy_scale=self.config.entropy_scale,
            scale=scale,
        )
        prediction = actor_critic.critic.distribution(critic_output[:, :-1])
        slow_value = None if slow_value is None else slow_value[:, :-1]
        critic_loss = losses.critic_loss(prediction, returns, weight, slow_value)

        metrics = {
            "loss/actor": actor_loss,
            "loss/critic": critic_loss,
            "behavior/entropy": entropy.mean(),
            "behavior/imagined_return": returns.mean(),
            "behavior/reward": reward.mean(),
            "behavior/value": value.mean(),
        }
        return actor_loss, critic_loss, metrics

    def replay_critic_loss(self, feature: torch.Tensor, bootstrap: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the critic's loss on the returns of replayed rewards, a scalar (Section "Critic learning").

        Its gradient also reaches the world model. feature: of the replayed states, (B, T, F). bootstrap: (B, T), the
        return imagined from each state.
        """
        config, actor_critic = self.config, self.actor_critic
        is_last = episode_ends(batch)
        returns = replay_return(batch, is_last, bootstrap.detach(), config.discount, config.lambda_)
        prediction = actor_critic.critic(feature[:, :-1])
        slow_value = None
        if actor_critic.regularized_by_slow_critic and actor_critic.slow_critic is not None:
            slow_value = actor_critic.slow_critic(feature[:, :-1].detach()).mean
        return losses.critic_loss(prediction, returns, 1 - is_last[:, :-1], slow_value)

    def predicted_reward(self, imagination: Imagination) -> torch.Tensor:
        """Return the rewards that the model predicts on arriving at s_1 … s_H, (N, H)."""
        return self.model.reward_model(imagination.feature[:, 1:]).mean


def returns_and_weights(
    reward: torch.Tensor, value: torch.Tensor, discount: torch.Tensor, lambda_: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the λ-returns R_0 … R_{H-1}, (N, H), and their weights in the losses, without gradient.

    reward: (N, H), r_1 … r_H. value, discount: (N, H + 1), of s_0 … s_H. The return R_k begins with r_{k+1}. The weight
    of R_k is γ_0 … γ_k; γ_0 is predicted like the others.
    """
    returns = lambda_return(
        reward,  # r_1 … r_H
        discount[:, 1:],  # γ_1 … γ_H
        value[:, 1:],  # v_1 … v_H
        lambda_,
    )
    weight = discount.cumprod(1)[:, :-1].detach()
    return returns, weight


def episode_ends(batch: Batch) -> torch.Tensor:
    """Return (B, T): 1 where an episode ends. At a window's last step an end is known only if the task ended."""
    next_is_first = torch.cat([batch.is_first[:, 1:], torch.zeros_like(batch.is_first[:, :1])], 1)
    return torch.maximum(next_is_first, batch.is_terminal)


def replay_return(
    batch: Batch, is_last: torch.Tensor, bootstrap: torch.Tensor, discount: float, lambda_: float
) -> torch.Tensor:
    """Return the λ-returns over the replayed rewards, (B, T - 1), for each step but the last.

    The return of step t begins with r_{t+1}. bootstrap: (B, T), a value of each step. Where the time limit ended an
    episode, the return is only bootstrapped.
    """
    discounts = discount * (1 - batch.is_terminal)
    lambdas = lambda_ * (1 - is_last)
    return lambda_return(batch.reward[:, 1:], discounts[:, 1:], bootstrap[:, 1:], lambdas[:, 1:])
