"""What the trainer, the checkpoints and an evaluation ask of an algorithm."""

from dreamer.modules.loading import load_fitting


class Algorithm:
    """Has `networks` and `optimizers`, by name; `model` and `actor`, which are evaluated; `update` and `collector`."""

    def update(self, batch):
        """Learn from a `replay.Batch` of windows on the device. Returns {tag: scalar tensor} and the features of the
        windows' posterior states (B, T, F), all without gradient and on the device."""
        raise NotImplementedError

    def collector(self, env):
        """The policy that collects in `env`: from a `Step` to an action."""
        raise NotImplementedError

    def phase(self, env_steps):
        """The algorithm that learns and collects once so many env steps have been collected: this one, or a part."""
        return self

    @property
    def device(self):
        return next(self.model.parameters()).device

    def state_dict(self):
        """All that learns."""
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


def without_gradient(metrics):
    """{tag: scalar tensor}: what is kept of an update does not keep its graph."""
    return {tag: value.detach() for tag, value in metrics.items()}
