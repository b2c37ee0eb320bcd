"""Plan2Explore: a Dreamer, beside which a second behaviour learns to explore, before or without a task.

From "Planning to Explore via Self-Supervised World Models".
Shapes: B batch, T time (dim 1), H horizon, N = B·T, K members, A action size, E embedding, F feature size.
"""

from dreamer import ranks
from dreamer.algorithms.algorithm import Algorithm, without_gradient
from dreamer.algorithms.dreamer import imagination_start
from dreamer.algorithms.policy import Policy, random_policy
from dreamer.modules.ensemble import disagreement
from dreamer.optim import make_optimizer


class Plan2Explore(Algorithm):
    """Two behaviours learn in the same world model, each from its own reward.

    The explorer seeks what an ensemble of one-step models disagrees about, and collects. The task's
    behaviour learns from the predicted reward and only ever acts to be evaluated: zero-shot. Once
    `explore_env_steps` are done the Dreamer goes on alone: few-shot.

    config: the sub-tree `parameters.plan2explore`. dreamer: the algorithm of the task. explorer: a behaviour.
    """

    def __init__(self, config, dreamer, one_step_model, explorer):
        self.config, self.dreamer, self.one_step_model, self.explorer = config, dreamer, one_step_model, explorer
        learning_rate = config.one_step_model_learning_rate
        self.one_step_optimizer = make_optimizer(dreamer.config, one_step_model, learning_rate)
        self.networks = dreamer.networks | {"one_step_model": one_step_model} | explorer.networks
        self.optimizers = dreamer.optimizers | {"one_step_model": self.one_step_optimizer} | explorer.optimizers
        self.model, self.actor = dreamer.model, dreamer.actor

    def phase(self, env_steps):
        limit = self.config.explore_env_steps
        return self if limit is None or env_steps < limit else self.dreamer

    def update(self, batch):
        """Dreamer's gradient steps, then one each of the ensemble, the exploration actor and its critic. Rewards shape
        the reward model alone: the world model knows no task."""
        posterior, embedding, metrics = self.dreamer.learn(batch, self.config.reward_gradient_to_model)
        target = posterior.stochastic if self.config.target == "stochastic" else embedding
        metrics |= self.one_step_learning(batch, posterior.feature, target)
        start = imagination_start(batch, posterior)
        explored = self.explorer.learn(self.model, *start, self.intrinsic_reward)
        metrics["exploration/intrinsic_reward"] = explored.pop("behavior/reward")
        metrics |= {tag.replace("/", "/exploration_"): value for tag, value in explored.items()}
        return without_gradient(metrics), posterior.feature

    # Section 3.1: latent disagreement

    def one_step_learning(self, batch, feature, target):
        """One gradient step of every member towards the target of t + 1, from s_t and a_{t+1}.

        feature, target: (B, T, ·), without gradient. What follows the last step of an episode is
        the first of another, which no action foretells: it is left out. The loss is the sum over
        the members, so each one's gradient is that of its own likelihood. Returns the metrics.
        """
        continues = 1 - batch.is_first[:, 1:]
        count = ranks.mean(continues.sum()).clamp(min=1 / ranks.count())
        with self.dreamer.autocast():
            prediction = self.one_step_model(feature[:, :-1], batch.action[:, 1:])
        likelihood = (continues * prediction.log_prob(target[:, 1:])).sum((1, 2)) / count
        norm = self.one_step_optimizer.step(-likelihood.sum())
        disagreed = continues * disagreement(prediction.mean.detach(), self.config.disagreement)
        return {
            "loss/one_step_model": -likelihood.mean(),
            "grad_norm/one_step_model": norm,
            "exploration/disagreement_replay": disagreed.sum() / count,
        }

    def intrinsic_reward(self, imagination):
        """The scaled disagreement about where the action a_τ leads from s_{τ-1}, received on arriving there: (N, H)."""
        state, action = imagination.feature[:, :-1], imagination.action
        if not self.config.disagreement_gradient:
            state, action = state.detach(), action.detach()
        reward = self.one_step_model.disagreement(state, action, self.config.disagreement)
        return self.config.intrinsic_reward_scale * reward

    def collector(self, env):
        """The explorer, with exploration noise; random actions, as a baseline."""
        if self.config.explorer == "random":
            return random_policy(env)
        config = self.dreamer.config
        return Policy(self.model, self.explorer.actor, config.exploration_noise, config.replay_context)
