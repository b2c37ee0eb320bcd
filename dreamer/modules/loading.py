"""Loads the weights of networks that were made for the same observations, actions and sizes."""

from dreamer.errors import ConfigError


def load_fitting(network, saved, whose):
    """Load a state_dict. Raises ConfigError, which begins with `whose`, unless its names and shapes are the network's.

    They differ, too, where an environment's observation is read in another way than when a run was begun.
    """
    own = {name: tuple(part.shape) for name, part in network.state_dict().items()}
    shapes = {name: tuple(part.shape) for name, part in saved.items()}
    for name in [*own, *shapes]:
        here, there = own.get(name, "missing"), shapes.get(name, "missing")
        if here != there:
            what = "it was made for other observations, actions or sizes than are here now"
            raise ConfigError(f"{whose} does not fit: {what} ({name}: {there} there, {here} here); start a new run")
    network.load_state_dict(saved)
