"""Plan2Explore: Dreamer that explores by itself, before or without a task.

From "Planning to Explore via Self-Supervised World Models". What is not here is as in `dreamer.py`.
Shapes: B batch, T time (dim 1), H horizon, N = B·T, K members, A action size, E embedding, F feature size.
"""

from dreamer.algorithms.dreamer import Dreamer
from dreamer.algorithms.policy import random_policy
from dreamer.modules.ensemble import disagreement


class Plan2Explore(Dreamer):
    """Two behaviours learn in the same world model, each from its own reward.

    The explorer seeks what an ensemble of one-step models disagrees about, and collects. The task's
    behaviour learns from the predicted reward and only ever acts to be evaluated: zero-shot. Once
    `explore_env_steps` are done it collects, and everything goes on as in Dreamer: few-shot.

    exploration: the sub-tree `parameters.plan2explore`. The rest: as for Dreamer.
    """

    def __init__(self, exploration, one_step_model, exploration_actor, exploration_critic, **parts):
        super().__init__(**parts)
        self.exploration = exploration
        self.one_step_model = one_step_model
        learning_rate = exploration.one_step_model_learning_rate
        self.one_step_optimizer = self.make_optimizer("one_step_model", one_step_model, learning_rate)
        self.explorer = self.make_behavior(exploration_actor, exploration_critic, prefix="exploration_")

    @property
    def exploring(self):
        limit = self.exploration.explore_env_steps
        return limit is None or self.env_steps < limit

    def update(self, batch):
        """Dreamer's gradient steps, then one each of the ensemble, the exploration actor and its critic."""
        posterior, embedding, metrics = self.dynamics_learning(batch)
        self.unfinished = metrics
        start = self.imagination_start(batch, posterior)
        metrics |= self.behavior_learning(self.behavior, *start, self.predicted_reward)
        if self.exploring:
            metrics |= self.one_step_learning(batch, posterior.feature, embedding)
            learned = self.behavior_learning(self.explorer, *start, self.intrinsic_reward)
            metrics["exploration/intrinsic_reward"] = learned.pop("behavior/reward")
            metrics |= {tag.replace("/", "/exploration_"): value for tag, value in learned.items()}
        return metrics

    def reward_loss(self, feature, reward):
        """As Dreamer's, but while exploring the rewards shape the reward model alone: the world model knows no task."""
        task_agnostic = self.exploring and not self.exploration.reward_gradient_to_model
        return super().reward_loss(feature.detach() if task_agnostic else feature, reward)

    # Section 3.1: latent disagreement

    def one_step_learning(self, batch, feature, embedding):
        """One gradient step of every member towards the embedding of o_{t+1}, from s_t and a_{t+1}.

        feature, embedding: (B, T, ·), without gradient. What follows the last step of an episode is
        the first of another, which no action foretells: it is left out. The loss is the sum over
        the members, so each one's gradient is that of its own likelihood. Returns the metrics.
        """
        continues = 1 - batch.is_first[:, 1:]
        count = continues.sum().clamp(min=1)
        with self.autocast():
            prediction = self.one_step_model(feature[:, :-1], batch.action[:, 1:])
        likelihood = (continues * prediction.log_prob(embedding[:, 1:])).sum((1, 2)) / count
        norm = self.one_step_optimizer.step(-likelihood.sum())
        disagreed = continues * disagreement(prediction.mean.detach(), self.exploration.disagreement)
        return {
            "loss/one_step_model": -likelihood.mean(),
            "grad_norm/one_step_model": norm,
            "exploration/disagreement_replay": disagreed.sum() / count,
        }

    def intrinsic_reward(self, imagination):
        """The scaled disagreement about where the action a_τ leads from s_{τ-1}, received on arriving there: (N, H)."""
        measure, state = self.exploration.disagreement, imagination.feature[:, :-1]
        reward = self.one_step_model.disagreement(state, imagination.action, measure)
        return self.exploration.intrinsic_reward_scale * reward

    def collection_policy(self, env):
        """The explorer, then the task's actor; both sample, with exploration noise. Random actions, as a baseline."""
        if not self.exploring:
            return super().collection_policy(env)
        if self.exploration.explorer == "random":
            return random_policy(env)
        return self.make_policy(self.explorer.actor, self.config.exploration_noise)
