"""The state of an environment between two episodes."""

import gym

from dreamer.envs.calls import call
from dreamer.envs.randomness import can_be_saved, generators, set_state, state_of, unknown_generators
from dreamer.envs.warn import warn_once


class Resumable(gym.Wrapper):
    """Can be saved between two episodes: the random states, and whatever the environment itself adds.

    An environment that carries more than random numbers from one episode into the next has a `state_dict` and a
    `load_state_dict` of its own, of plain values and arrays. These then speak for all but its `np_random`.
    """

    @property
    def inner(self):
        """The environment itself; of gymnasium's, what is below the wrapper that makes it one of gym's."""
        return getattr(self.env.unwrapped, "innermost", self.env.unwrapped)

    @property
    def np_random(self):
        """The environment's generator of that name; None if it has none, or one that cannot be saved."""
        generator = getattr(self.inner, "np_random", None)
        return generator if can_be_saved(generator) else None

    def state_dict(self):
        own = getattr(self.inner, "state_dict", None)
        if not own:
            self.tell_what_is_lost()
        return {
            "action_space": self.action_space.np_random.bit_generator.state,
            "np_random": state_of(self.np_random) if self.np_random else None,
            "generators": {path: state_of(generator) for path, generator in self.others().items()},
            "environment": call("the environment's state_dict", own) if own else None,
        }

    def others(self):
        """The generators beside `np_random` that are saved for an environment which does not do so itself."""
        if hasattr(self.inner, "state_dict"):
            return {}
        return {path: each for path, each in generators(self.inner).items() if each is not self.np_random}

    def tell_what_is_lost(self):
        unknown = unknown_generators(self.inner)
        if unknown:
            kinds = ", ".join(f"{path} ({kind})" for path, kind in unknown.items())
            advice = "give the environment state_dict and load_state_dict"
            line = f"a run that is resumed goes on with other random numbers than one that is not; {advice}"
            warn_once(f"of the environment's state {kinds} cannot be saved: {line}")

    def load_state_dict(self, state):
        self.action_space.np_random.bit_generator.state = state["action_space"]
        if state["np_random"] and self.np_random:
            set_state(self.np_random, state["np_random"])
        here, saved = self.others(), state.get("generators", {})  # older checkpoints have none
        for path in saved.keys() & here.keys():
            set_state(here[path], saved[path])
        if hasattr(self.inner, "load_state_dict"):
            call("the environment's load_state_dict", self.inner.load_state_dict, state["environment"])
