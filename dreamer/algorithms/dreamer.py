"""Dreamer, from "Dream to Control" (arXiv 1912.01603): one update of Algorithm 1, from top to bottom.

`losses.py` has the equations that all versions share, as functions. The trainer decides when an update is made.
Shapes: B batch, T time (dim 1), H horizon, N = B·T, A action size, E embedding, F feature size.
"""

import torch
from torch.profiler import record_function

from dreamer.algorithms import losses
from dreamer.algorithms.actor_critic import ActorCritic, Values
from dreamer.algorithms.algorithm import DreamerAlgorithm, Metrics, RewardFunction
from dreamer.algorithms.losses import Imagination, imagined_discount, lambda_return
from dreamer.modules.gradients import frozen
from dreamer.modules.rssm import State
from dreamer.replay.step import Batch


class Dreamer(DreamerAlgorithm):
    """The world model makes its step first. Then actor and critic learn in the imagination of the updated model."""

    def learn(
        self, batch: Batch, updates: int | torch.Tensor = 0, reward_gradient: bool = True
    ) -> tuple[State, torch.Tensor, Metrics]:
        with self.autocast():
            model_loss, posterior, embedding, metrics = self.model_loss(batch, reward_gradient)
        metrics["grad_norm/model"] = self.model_optimizer.step(model_loss)

        posterior, embedding = posterior.detach(), embedding.detach()
        start, is_terminal = self.start_states(posterior, batch)
        metrics |= self.learn_behavior(self.actor_critic, start, is_terminal, self.predicted_reward)
        return posterior, embedding, metrics

    def learn_behavior(
        self, actor_critic: ActorCritic, start: State, is_terminal: torch.Tensor, reward_function: RewardFunction
    ) -> Metrics:
        with self.autocast():
            actor_loss, critic_loss, metrics = self.behavior_losses(actor_critic, start, is_terminal, reward_function)
        return metrics | actor_critic.step(actor_loss, critic_loss)

    @record_function("world model's loss")
    def model_loss(
        self, batch: Batch, reward_gradient: bool = True
    ) -> tuple[torch.Tensor, State, torch.Tensor, Metrics]:
        """Return the model's loss, Equation 10: reconstruct the observation, predict the reward, keep the posterior
        close to the prior. `DreamerAlgorithm.model_loss_from_states` has the terms.

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
    ) -> tuple[torch.Tensor, torch.Tensor, Metrics]:
        """Return the losses of actor and critic, Equations 7 and 8: raise the imagined returns, and predict them.

        The action a_k is chosen at s_{k-1} and learns from the return R_k; the critic's v(s_k) predicts R_k. Arguments
        as for `learn_behavior`. Returns two scalars and the metrics.
        """
        with frozen(self.model):  # the actor's gradient passes through the model, whose weights get none
            imagination = self.imagine(actor_critic, start)
            values = actor_critic.values(imagination.feature)
            with torch.set_grad_enabled(actor_critic.through_dynamics):
                reward = reward_function(imagination)
            returns, weight = self.targets(values, imagination.feature, reward, is_terminal)
        scale = actor_critic.scale(returns)
        return self.behavior_losses_from_returns(
            imagination, actor_critic, values=values, reward=reward, returns=returns, weight=weight, scale=scale
        )

    def targets(
        self, values: Values, feature: torch.Tensor, reward: torch.Tensor, is_terminal: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return λ-returns (Equation 6) and weights of imagined states (N, H + 1, F) with rewards r_1 … r_H, (N, H)."""
        config, continue_model = self.config, self.model.continue_model
        discount = imagined_discount(continue_model, feature, config.discount, config.discount_in_continue)
        return returns_and_weights(reward, values.value, discount, is_terminal, config.lambda_)

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
        num_returns = returns.shape[1]
        policy = imagination.policy(actor_critic.actor, num_returns)
        actor_loss, entropy = losses.actor_loss(
            policy,
            imagination.action,
            returns,
            value[:, :num_returns],
            weight,
            actor_gradient=actor_critic.actor_gradient,
            entropy_scale=self.config.entropy_scale,
            scale=scale,
        )
        states = slice(1, num_returns + 1)  # s_1 … s_{H-1}
        prediction = actor_critic.critic.distribution(critic_output[:, states])
        slow_value = None if slow_value is None else slow_value[:, states]
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

    def predicted_reward(self, imagination: Imagination) -> torch.Tensor:
        """Return the rewards that the model predicts on arriving at s_1 … s_H, (N, H)."""
        return self.model.reward_model(imagination.feature[:, 1:]).mean


def returns_and_weights(
    reward: torch.Tensor, value: torch.Tensor, discount: torch.Tensor, is_terminal: torch.Tensor, lambda_: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the λ-returns R_1 … R_{H-1}, (N, H - 1), and their weights in the losses, without gradient.

    reward: (N, H), r_1 … r_H. value, discount: (N, H + 1), of s_0 … s_H. is_terminal: (N,). The return R_k begins with
    r_k; s_H only bootstraps. The weight of R_k is the discounted probability of reaching s_k: γ_1 … γ_{k-1}, or 0 where
    the task had ended at s_0.
    """
    returns = lambda_return(
        reward[:, :-1],  # r_1 … r_{H-1}
        discount[:, 1:-1],  # γ_1 … γ_{H-1}
        value[:, 2:],  # v_2 … v_H
        lambda_,
    )
    first_weight = 1 - is_terminal[:, None]
    factors = torch.cat([first_weight, discount[:, 1:-2]], 1)  # the first weight, γ_1 … γ_{H-2}
    return returns, factors.cumprod(1).detach()
