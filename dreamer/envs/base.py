"""Base classes of the wrappers."""

from typing import Any

import gymnasium


class Wrapper(gymnasium.Wrapper):
    """A wrapper through which all public attributes of the environment below can be read."""

    def __getattr__(self, name: str) -> Any:
        if name == "env" or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.env, name)


class ObservationWrapper(Wrapper):
    """Changes observations by its method `observation`."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self.observation(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, *rest = self.env.step(action)
        return self.observation(observation), *rest

    def observation(self, observation: Any) -> Any:
        """Return the changed observation."""
        raise NotImplementedError


class ActionWrapper(Wrapper):
    """Changes actions by its method `action`."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return self.env.step(self.action(action))

    def action(self, action: Any) -> Any:
        """Return the action that the environment below takes."""
        raise NotImplementedError
