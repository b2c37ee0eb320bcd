"""Load saved weights into networks, and check that they fit and are finite."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from dreamer.errors import ConfigError, NotFiniteError


def load_fitting(network: nn.Module, saved: Mapping[str, Any], whose: str) -> None:
    """Load a state_dict into a network. Raises ConfigError if its names or shapes differ from the network's.

    They also differ if observations are read in another way than when the run was started. whose: which network the
    message names.
    """
    expected_shapes = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    saved_shapes = {name: tuple(weight.shape) for name, weight in saved.items()}
    for name in [*expected_shapes, *saved_shapes]:
        here, there = expected_shapes.get(name, "missing"), saved_shapes.get(name, "missing")
        if here != there:
            reason = "it was made for other observations, actions or sizes than are here now"
            raise ConfigError(f"{whose} does not fit: {reason} ({name}: {there} there, {here} here); start a new run")
    network.load_state_dict(saved)


def load_weights(networks: Mapping[str, nn.Module], weights: Mapping[str, Mapping[str, Any]], whose: str) -> None:
    """Load a state_dict into each of several networks. Raises ConfigError if one does not fit. whose: as text."""
    for name, network in networks.items():
        load_fitting(network, weights[name], f"the {name} of {whose}")


def check_weights(networks: Mapping[str, nn.Module], whose: str) -> None:
    """Raise NotFiniteError if a weight of several networks is infinite or NaN. whose: as text."""
    for name, network in networks.items():
        if not all(weight.isfinite().all() for weight in network.state_dict().values()):
            raise NotFiniteError(f"not finite: weights of the {name} of {whose}")
