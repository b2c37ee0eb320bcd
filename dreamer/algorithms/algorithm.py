"""What the trainer, the checkpoints and an evaluation ask of an algorithm."""


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
        for kind, parts in (("networks", self.networks), ("optimizers", self.optimizers)):
            for name, part in parts.items():
                part.load_state_dict(state[kind][name])


def without_gradient(metrics):
    """{tag: scalar tensor}: what is kept of an update does not keep its graph."""
    return {tag: value.detach() for tag, value in metrics.items()}
