"""DreamerV2, from "Mastering Atari with Discrete World Models" (arXiv 2010.02193): one update, from top to bottom.

Its latents, networks, optimiser and actor gradient are options of every version: `configs/dreamer-v2.yml` sets them.
Only this version's returns begin at s_0, with the reward received there.
Shapes: B batch, T time (dim 1), H horizon, N = B·T, A action size, E embedding, F feature size.
"""

import torch
from torch.nn import functional
from torch.profiler import record_function

from dreamer.algorithms import losses
from dreamer.algorithms.actor_critic import ActorCritic, Values
from dreamer.algorithms.algorithm import DreamerAlgorithm, Metrics, RewardFunction
from dreamer.algorithms.losses import Imagination, imagined_discount, lambda_return
from dreamer.modules.gradients import frozen
from dreamer.modules.rssm import State
from dreamer.replay.step import Batch


class DreamerV2(DreamerAlgorithm):
    """The world model makes its step first. Then actor and critic learn in the imagination of the updated model."""

    def learn(
        self, batch: Batch, updates: int | torch.Tensor = 0, reward_gradient: bool = True
    ) -> tuple[State, torch.Tensor, Metrics]:
        with self.autocast():
            model_loss, posterior, embedding, metrics = self.model_loss(batch, reward_gradient)
        metrics["grad_norm/model"] = self.model_optimizer.step(model_loss)

        posterior, embedding = posterior.detach(), embedding.detach()
        start, is_terminal = self.start_states(posterior, batch)
        metrics |= self.learn_behavior(
            self.actor_critic, start, is_terminal, self.predicted_reward, start_has_reward=True
        )
        return posterior, embedding, metrics

    def learn_behavior(
        self,
        actor_critic: ActorCritic,
        start: State,
        is_terminal: torch.Tensor,
        reward_function: RewardFunction,
        start_has_reward: bool = False,
    ) -> Metrics:
        """Make one gradient step of an actor and one of its critic, in imagination. Return the metrics.

        start: states (N, ·) without gradient. is_terminal: (N,), 1 where the task had ended. start_has_reward: whether
        the reward function also returns r_0, so (N, H + 1).
        """
        with self.autocast():
            actor_loss, critic_loss, metrics = self.behavior_losses(
                actor_critic, start, is_terminal, reward_function, start_has_reward
            )
        return metrics | actor_critic.step(actor_loss, critic_loss)

    @record_function("world model's loss")
    def model_loss(
        self, batch: Batch, reward_gradient: bool = True
    ) -> tuple[torch.Tensor, State, torch.Tensor, Metrics]:
        """Return the model's loss, Equation 2: reconstruct the observation, predict the reward, keep posterior and
        prior close (KL balancing). `DreamerAlgorithm.model_loss_from_states` has the terms.

        State s_t has seen the action a_t that led to it and the observation o_t; it predicts the reward r_t received
        with them. Returns a scalar, the posterior states (B, T, ·), the embeddings (B, T, E) and the metrics.
        """
        observation, embedding = self.model.encode(batch.observation)
        prior, posterior = self.model.rssm.observe(embedding, batch.action, batch.is_first, batch.latent)
        loss, metrics = self.model_loss_from_states(prior, posterior, observation, batch, reward_gradient)
        return loss, posterior, embedding, metrics

    @record_function("behaviour's losses")
    def behavior_losses(
        self,
        actor_critic: ActorCritic,
        start: State,
        is_terminal: torch.Tensor,
        reward_function: RewardFunction,
        start_has_reward: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, Metrics]:
        """Return the losses of actor and critic, Equations 4 to 6: predict the imagined returns, and raise them.

        The action a_k is chosen at s_{k-1} and learns from the return R_k; the critic's v(s_k) predicts R_k, from s_0
        on if r_0 is given, else from s_1 on. Arguments as for `learn_behavior`. Returns two scalars and the metrics.
        """
        with frozen(self.model):  # the actor's gradient passes through the model, whose weights get none
            imagination = self.imagine(actor_critic, start)
            values = actor_critic.values(imagination.feature)
            with torch.set_grad_enabled(actor_critic.through_dynamics):
                reward = reward_function(imagination)
            reward_from_start = reward if start_has_reward else functional.pad(reward, (1, 0))  # (N, H + 1), r_0 or 0
            returns, weight = self.targets(values, imagination.feature, reward_from_start, is_terminal)
        scale = actor_critic.scale(returns[:, 1:])
        return self.behavior_losses_from_returns(
            imagination, actor_critic, values=values, reward=reward, returns=returns, weight=weight, scale=scale
        )

    def targets(
        self, values: Values, feature: torch.Tensor, reward: torch.Tensor, is_terminal: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return λ-returns (Equation 4) and weights of imagined states (N, H + 1, F).

        reward: r_0 … r_H, (N, H + 1).
        """
        config, continue_model = self.config, self.model.continue_model
        discount = imagined_discount(continue_model, feature, config.discount, config.discount_in_continue)
        return returns_and_weights(reward, values.value, discount, is_terminal, config.discount, config.lambda_)

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
        """Return the losses of actor and critic, scalars, and the metrics.

        reward: as the reward function returned it, with r_0 or without. scale: what returns are divided by.
        """
        value, slow_value, critic_output = values
        horizon = returns.shape[1]
        policy = imagination.policy(actor_critic.actor, horizon - 1)
        actor_loss, entropy = losses.actor_loss(
            policy,
            imagination.action,
            returns[:, 1:],
            value[:, : horizon - 1],
            weight[:, :-1],
            actor_gradient=actor_critic.actor_gradient,
            entropy_scale=self.config.entropy_scale,
            scale=scale,
        )
        start_has_reward = reward.shape[1] == horizon + 1
        first_state = 0 if start_has_reward else 1  # without r_0, v(s_0) has no target
        states = slice(first_state, horizon)
        prediction = actor_critic.critic.distribution(critic_output[:, states])
        slow_value = None if slow_value is None else slow_value[:, states]
        critic_loss = losses.critic_loss(prediction, returns[:, states], weight[:, states], slow_value)

        metrics = {
            "loss/actor": actor_loss,
            "loss/critic": critic_loss,
            "behavior/entropy": entropy.mean(),
            "behavior/imagined_return": returns[:, 1:].mean(),
            "behavior/reward": reward.mean(),
            "behavior/value": value.mean(),
        }
        return actor_loss, critic_loss, metrics

    def predicted_reward(self, imagination: Imagination) -> torch.Tensor:
        """Return the rewards that the model predicts on arriving at s_0 … s_H, (N, H + 1)."""
        return self.model.reward_model(imagination.feature).mean


def returns_and_weights(
    reward: torch.Tensor,
    value: torch.Tensor,
    discount: torch.Tensor,
    is_terminal: torch.Tensor,
    gamma: float,
    lambda_: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the λ-returns R_0 … R_{H-1}, (N, H), and their weights in the critic's loss, without gradient.

    reward: (N, H + 1), r_0 … r_H. value, discount: (N, H + 1), of s_0 … s_H. is_terminal: (N,). The return R_k begins
    with r_k; s_H only bootstraps. The discount of s_0 is known: γ (gamma), or 0 where the task had ended. The weight of
    R_k is the discounted probability of reaching s_k, γ_0 … γ_{k-1}. In the actor's loss a_k has the weight of R_{k-1}.
    """
    start_discount = gamma * (1 - is_terminal[:, None])
    discount = torch.cat([start_discount, discount[:, 1:-1]], 1)  # γ_0 … γ_{H-1}
    returns = lambda_return(
        reward[:, :-1],  # r_0 … r_{H-1}
        discount,
        value[:, 1:],  # v_1 … v_H
        lambda_,
    )
    factors = torch.cat([torch.ones_like(start_discount), discount[:, :-1]], 1)  # 1, γ_0 … γ_{H-2}
    return returns, factors.cumprod(1).detach()
