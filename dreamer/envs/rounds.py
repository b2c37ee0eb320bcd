"""Environments that play in rounds: an episode in each of them, in as many steps as the longest one takes."""

from typing import Any

import numpy as np
from gymnasium import spaces


class RoundEnvs:
    """E environments that play in rounds. Where `run_episode` meets one observation, here are those of all, (E, ...).

    A subclass has `reset`, which begins a round, and `step`.
    """

    def __init__(self, example: Any, num_envs: int) -> None:
        """example: one of the environments, or one like them, for its spaces. num_envs: E."""
        self.observation_space, self.action_space = example.observation_space, example.action_space
        self.description, self.unwrapped_spaces = example.description, example.unwrapped_spaces
        space = self.observation_space
        self.parts: dict[Any, Any] = space.spaces if isinstance(space, spaces.Dict) else {None: space}
        self.max_agent_steps, self.num_envs = example.max_agent_steps, num_envs

    def clear_observations(self) -> None:
        """Make the observations zeros, as those of environments that do not play in a round are."""
        self.observation = {
            key: np.zeros((self.num_envs, *space.shape), space.dtype) for key, space in self.parts.items()
        }

    def put(self, number: int, observation: Any) -> None:
        """Keep the observation of an environment."""
        for key, part in self.observation.items():
            part[number] = observation if key is None else observation[key]

    def observations(self) -> Any:
        """Return the observations of all environments, (E, ...), as one: a dict if theirs are dicts."""
        parts: dict[Any, Any] = {key: part.copy() for key, part in self.observation.items()}
        return parts.get(None, parts)
