"""Environments that gymnasium's `make` returns."""

from collections.abc import Iterator
from typing import Any

import gymnasium
from gymnasium import spaces

from dreamer.envs.vectorized import FirstOfVector


class GymnasiumEnv(gymnasium.Env):
    """An environment of gymnasium whose observation space has no text; observations and actions stay as they are."""

    def __init__(self, env: Any, max_episode_steps: int | None) -> None:
        """env: of gymnasium's API, but not always a `gymnasium.Env`: `old_api` may have adapted it."""
        self.env = env
        self.vector = env.vector if isinstance(env, FirstOfVector) else None  # the environments stepped as one with it
        self.metadata, self.render_mode = env.metadata, env.render_mode
        self.max_episode_steps = max_episode_steps
        self.action_space = env.action_space
        self.observation_space = without_text(env.observation_space)
        self.left_out = list(texts(env.observation_space))  # the names of the texts

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return self.env.step(action)

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    @property
    def unwrapped(self) -> Any:
        """Return the innermost environment, whose state is saved."""
        return self.env.unwrapped


def without_text(space: Any) -> Any:
    """Return a space without the texts in its Dicts. The parts of a Dict keep their order."""
    if isinstance(space, spaces.Dict):
        parts = {key: without_text(part) for key, part in space.spaces.items() if not is_text(part)}
        return spaces.Dict(parts, sort_keys=space.sort_keys) if parts else space
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([without_text(part) for part in space.spaces])
    return space


def texts(space: Any, name: str = "") -> Iterator[str]:
    """Yield the names of the texts that `without_text` leaves out. Nested parts are named outer/inner."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            if is_text(part):
                yield f"{name}{key}"
            else:
                yield from texts(part, f"{name}{key}/")
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from texts(part, f"{name}{index}/")


def is_text(space: Any) -> bool:
    """Return whether a space holds text, whatever its class: packages have classes of their own for it."""
    return getattr(space.dtype, "kind", None) == "U"
