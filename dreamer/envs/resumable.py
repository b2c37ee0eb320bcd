"""The state of an environment between two episodes."""

from collections.abc import Mapping
from typing import Any

from dreamer.envs.base import Wrapper
from dreamer.envs.calls import call
from dreamer.envs.randomness import can_be_saved, generators, set_state, state_of, unknown_generators
from dreamer.envs.spaces import Spaces
from dreamer.envs.warn import warn_once


class Resumable(Wrapper):
    """Saves the state of an environment between two episodes: its random states, and its own `state_dict`, if any.

    An environment that carries more than random numbers from one episode into the next needs a `state_dict` and a
    `load_state_dict` of its own, of plain values and arrays. They must hold all of its state but its `np_random`.
    """

    description: list[str]  # lines about what is observed, for people
    unwrapped_spaces: Spaces  # before any wrapper

    def generator(self) -> Any:
        """Return the environment's `np_random`; None if it has none, or one that cannot be saved."""
        generator = getattr(self.unwrapped, "np_random", None)
        return generator if can_be_saved(generator) else None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the environment, and of its random actions."""
        env_state_dict = getattr(self.unwrapped, "state_dict", None)
        generator = self.generator()
        if not env_state_dict:
            self.warn_of_lost_state()
        return {
            "action_space": self.action_space.np_random.bit_generator.state,
            "np_random": state_of(generator) if generator else None,
            "generators": {path: state_of(generator) for path, generator in self.other_generators().items()},
            "environment": call("the environment's state_dict", env_state_dict) if env_state_dict else None,
        }

    def other_generators(self) -> dict[str, Any]:
        """Return the generators beside `np_random`, {path: generator}; none if the environment saves its own state."""
        if hasattr(self.unwrapped, "state_dict"):
            return {}
        np_random = self.generator()
        return {path: other for path, other in generators(self.unwrapped).items() if other is not np_random}

    def warn_of_lost_state(self) -> None:
        """Warn about random states that cannot be saved."""
        unknown = unknown_generators(self.unwrapped)
        if unknown:
            attributes = ", ".join(f"{path} ({type_name})" for path, type_name in unknown.items())
            advice = "give the environment state_dict and load_state_dict"
            effect = f"a run that is resumed draws other random numbers than one that is not; {advice}"
            warn_once(f"of the environment's state {attributes} cannot be saved: {effect}")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the environment to a state of `state_dict`."""
        self.action_space.np_random.bit_generator.state = state["action_space"]
        generator = self.generator()
        if state["np_random"] and generator:
            set_state(generator, state["np_random"])
        others = self.other_generators()
        saved = state.get("generators", {})  # older checkpoints have none
        for path in saved.keys() & others.keys():
            set_state(others[path], saved[path])
        if hasattr(self.unwrapped, "load_state_dict"):
            call("the environment's load_state_dict", self.unwrapped.load_state_dict, state["environment"])
