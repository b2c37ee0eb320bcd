"""DreamerV3: what "Mastering Diverse Domains through World Models" (arXiv 2301.04104, version 2) changes.

Blocks and norms are in `modules/`, symlog and two-hot in `modules/distributions.py`, free bits for each step in
`Dreamer.kl_loss`, the scale of the returns in `behavior_parts.py`, LaProp in `optim.py`: the configuration chooses
them. Here is the rest: to which state a return belongs, all gradients at the same weights, and a critic that learns
from the replay, too.
"""

import torch

from dreamer.algorithms.dreamer import Behavior, Dreamer, Targets, imagination_start, lambda_return
from dreamer.optim import step_together


class DreamerV3(Dreamer):
    def learn(self, batch, reward_gradient=True):
        """One gradient step of world model, actor and critic together, each down the losses that are its own."""
        behavior = self.behavior
        model, actor, critic = self.model_optimizer, behavior.actor_optimizer, behavior.critic_optimizer
        with self.autocast():
            model_loss, posterior, embedding, metrics = self.model_loss(batch, reward_gradient)
            start = imagination_start(batch, posterior.detach())
            actor_loss, critic_loss, targets, behaved = behavior.losses(self.model, *start, self.predicted_reward)
            losses = [(actor_loss, [actor]), (critic_loss, [critic]), (model_loss, [model])]
            if scale := self.config.replay_critic_scale:
                returns = targets.returns[:, 0].unflatten(0, batch.reward.shape)
                behaved["loss/replay_critic"] = behavior.replay_critic_loss(posterior.feature, returns, batch)
                losses[-1] = model_loss + scale * behaved["loss/replay_critic"], [model, critic]
        actor_norm, critic_norm, model_norm = step_together(losses)
        if behavior.slow_critic:
            behavior.slow_critic.follow(behavior.critic)
        norms = {"grad_norm/model": model_norm, "grad_norm/actor": actor_norm, "grad_norm/critic": critic_norm}
        return posterior.detach(), embedding.detach(), metrics | behaved | norms


class BehaviorV3(Behavior):
    def targets(self, reward, value, discount, is_terminal):
        """Returns of s_0 … s_{H-1}, each without its own state's reward: the action a_{k+1}, chosen at s_k, answers
        for what follows s_k. The discount at s_0 is predicted, too, and part of every weight."""
        returns = lambda_return(reward, discount[:, 1:], value[:, 1:], self.config.lambda_)
        weight = discount.cumprod(1)[:, :-1].detach()
        return Targets(returns, value[:, :-1], weight, returns, weight, critic_first=0)

    def replay_critic_loss(self, feature, imagined, batch):
        """The critic's loss at the posterior states themselves, whose gradient reaches the world model.

        feature: (B, T, F). imagined: (B, T), the return imagined from each, which bootstraps.
        """
        is_last = last_steps(batch)
        returns = replay_return(batch, is_last, imagined.detach(), self.config.discount, self.config.lambda_)
        prediction = self.critic(feature[:, :-1])
        log_prob = prediction.log_prob(returns)
        if self.config.slow_critic == "regularizer":
            log_prob = log_prob + prediction.log_prob(self.slow_critic(feature[:, :-1].detach()).mean)
        return -((1 - is_last[:, :-1]) * log_prob).mean()


def last_steps(batch):
    """(B, T): 1 where an episode ends, as far as the window tells."""
    following = torch.cat([batch.is_first[:, 1:], torch.zeros_like(batch.is_first[:, :1])], 1)
    return torch.maximum(following, batch.is_terminal)


def replay_return(batch, is_last, bootstrap, discount, lambda_):
    """λ-returns over the replayed rewards, (B, T - 1): of each step but the last, without its own reward.

    bootstrap: (B, T), a value of each step. Where an episode was cut off, all that follows is the bootstrap.
    """
    goes_on, lambda_ = discount * (1 - batch.is_terminal), lambda_ * (1 - is_last)
    return lambda_return(batch.reward[:, 1:], goes_on[:, 1:], bootstrap[:, 1:], lambda_[:, 1:])
