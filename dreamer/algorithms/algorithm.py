"""What the trainer, the checkpoints and an evaluation use of an algorithm, and what the versions of Dreamer share."""

from contextlib import nullcontext

from dreamer.algorithms.optim import make_optimizer
from dreamer.algorithms.policy import Policy
from dreamer.modules.loading import load_fitting


class Algorithm:
    """Something that learns from windows of the replay and acts.

    Subclasses set `networks` and `optimizers`, both by name, and `model` and `actor`, which are evaluated.
    """

    def update(self, batch, updates=0):
        """Learn from a batch once.

        batch: a `replay.Batch` of windows (B, T, ·) on the device. updates: the number of updates made before this
        one, for schedules; in training a scalar tensor on the device, which a CUDA graph may read. Returns the metrics
        {tag: scalar tensor} and the latent states to store with the windows' steps (B, T, ·), all without gradient.
        """
        raise NotImplementedError

    def collector(self, env):
        """Return the policy that collects in `env`, a function from a `Step` to an action."""
        raise NotImplementedError

    def active(self, env_steps):
        """Return the algorithm that learns and collects after `env_steps`: this one, or a part of it."""
        return self

    @property
    def device(self):
        return next(self.model.parameters()).device

    def state_dict(self):
        """Return all that learns."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def load_state_dict(self, state):
        """Raises ConfigError for networks of other sizes."""
        for name, network in self.networks.items():
            load_fitting(network, state["networks"][name], f"the {name} of this run")
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])


class DreamerAlgorithm(Algorithm):
    """A world model, and an actor with its critic that learn in its imagination. Each version spells out how.

    config: the sub-tree `parameters.dreamer`. model: a `WorldModel`. actor_critic: an `ActorCritic`. autocast: makes
    the context in which large products take the configured precision; it ends before an optimiser steps, since it keeps
    copies of the weights.
    """

    def __init__(self, config, model, actor_critic, autocast=nullcontext):
        self.config, self.model, self.actor_critic, self.autocast = config, model, actor_critic, autocast
        self.actor = actor_critic.actor
        self.model_optimizer = make_optimizer(config, model, config.model_learning_rate)
        self.networks = {"model": model, **actor_critic.networks}
        self.optimizers = {"model": self.model_optimizer, **actor_critic.optimizers}

    def update(self, batch, updates=0):
        posterior, _, metrics = self.learn(batch, updates)
        return without_gradient(metrics), posterior.stored

    def learn(self, batch, updates=0, reward_gradient=True):
        """Make one gradient step of the world model, of the actor and of the critic.

        batch, updates: as for `update`. reward_gradient: whether rewards shape the latent states, too; False trains
        the reward model alone (Plan2Explore). Returns the posterior states (B, T, ·) and the embeddings (B, T, E) that
        the step was computed from, without gradient, and the metrics {tag: scalar tensor}.
        """
        raise NotImplementedError

    def learn_behavior(self, actor_critic, start, is_terminal, reward_function):
        """Make one gradient step of an actor and its critic in imagination. Return the metrics.

        start: states (N, ·) without gradient. is_terminal: (N,), 1 where the task had ended. reward_function: from an
        `Imagination` to the rewards received on arriving at s_1 … s_H, (N, H).
        """
        raise NotImplementedError

    def collector(self, env):
        """Return the policy that samples the actor and adds the exploration noise."""
        return Policy(self.model, self.actor, self.config.exploration_noise, self.config.replay_context)


def without_gradient(metrics):
    """Return {tag: scalar tensor} without its graph."""
    return {tag: value.detach() for tag, value in metrics.items()}
