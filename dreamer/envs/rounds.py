"""Environments that play in rounds: one episode in each, until the longest is over."""

from typing import Any

import numpy as np
from gymnasium import spaces


class RoundEnvs:
    """E environments that play in rounds. Observations and actions are those of all, (E, ...).

    A subclass has `reset`, which begins a round, and `step`.
    """

    def __init__(self, example: Any, num_envs: int) -> None:
        """example: one of the environments, or one like them, for its spaces. num_envs: E."""
        self.observation_space, self.action_space = example.observation_space, example.action_space
        self.description, self.unwrapped_spaces = example.description, example.unwrapped_spaces
        space = self.observation_space
        # The parts of an observation by their keys; an observation without parts is its only part, with the key None.
        self.parts: dict[Any, Any] = space.spaces if isinstance(space, spaces.Dict) else {None: space}
        self.max_agent_steps, self.num_envs = example.max_agent_steps, num_envs

    def clear_observations(self) -> None:
        """Set the observations to zeros, which environments that do not play in a round keep."""
        self.observation = {
            key: np.zeros((self.num_envs, *space.shape), space.dtype) for key, space in self.parts.items()
        }

    def store_observation(self, number: int, observation: Any) -> None:
        """Store the observation of one environment."""
        for key, part in self.observation.items():
            part[number] = observation if key is None else observation[key]

    def observations(self) -> Any:
        """Return a copy of the observations of all environments, (E, ...): a dict if theirs are dicts."""
        parts: dict[Any, Any] = {key: part.copy() for key, part in self.observation.items()}
        is_single = None in parts  # the key of an observation without parts
        return parts[None] if is_single else parts
