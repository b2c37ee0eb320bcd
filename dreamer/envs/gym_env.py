"""Environments of gym 0.26 on the API of gymnasium. Nothing else imports gym."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gym_notices.notices
import gymnasium
from gymnasium import spaces

from dreamer.envs.gymnasium_env import is_text
from dreamer.envs.observation import Part, check_box, unsupported_space
from dreamer.errors import EnvError

gym_notices.notices.notices.clear()  # else gym prints pages about its successor when it is imported

import gym  # noqa: E402


class GymEnv(gymnasium.Env):
    """An environment of gym with gymnasium's spaces and errors; observations and actions stay as they are.

    Raises EnvError for an observation space that gymnasium cannot have.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.metadata, self.render_mode, self.spec = env.metadata, env.render_mode, env.spec
        self.observation_space = convert(env.observation_space)
        self.action_space = convert_action(env.action_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        keywords: dict[str, Any] = {}
        if seed is not None:
            keywords["seed"] = seed
        if options is not None:
            keywords["options"] = options
        with as_gymnasium_says():
            return self.env.reset(**keywords)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        with as_gymnasium_says():
            return self.env.step(action)

    def render(self) -> Any:
        with as_gymnasium_says():
            return self.env.render()

    def close(self) -> None:
        self.env.close()

    @property
    def unwrapped(self) -> Any:
        """Return gym's innermost environment, whose state is saved."""
        return self.env.unwrapped


@contextmanager
def as_gymnasium_says() -> Iterator[None]:
    """Turn errors of gym, such as about a missing rendering library, into gymnasium's."""
    try:
        yield
    except gym.error.Error as error:
        error_type = getattr(gymnasium.error, type(error).__name__, gymnasium.error.Error)
        raise error_type(str(error)) from error


def convert(space: Any, path: tuple[Any, ...] = ()) -> Any:
    """Return a space of gymnasium that holds what an observation space of gym does; a text becomes any text.

    path: the keys and indices that lead to the space. Raises EnvError for a space of another kind.
    """
    if isinstance(space, gym.spaces.Dict):
        parts = [(key, convert(part, (*path, key))) for key, part in space.spaces.items()]
        return spaces.Dict(parts, sort_keys=False)  # gym's order: agents have learned from vectors in it
    if isinstance(space, gym.spaces.Tuple):
        return spaces.Tuple([convert(part, (*path, index)) for index, part in enumerate(space.spaces)])
    if isinstance(space, gym.spaces.Box):
        return _box(space, Part(path, space).where)
    if isinstance(space, gym.spaces.Discrete):
        return spaces.Discrete(int(space.n), start=int(space.start))
    if isinstance(space, gym.spaces.MultiBinary):
        return spaces.MultiBinary(space.shape)
    if isinstance(space, gym.spaces.MultiDiscrete):
        dtype: Any = space.dtype
        return spaces.MultiDiscrete(space.nvec, dtype)
    if isinstance(space, gym.Space) and is_text(space):
        return spaces.Text(1)
    raise unsupported_space(Part(path, space))


def convert_action(space: Any) -> Any:
    """Return a space of gymnasium that holds what an action space of gym does, or the space itself if no environment
    here takes such actions."""
    if isinstance(space, gym.spaces.Box):
        return _box(space, "the action space")
    try:
        return convert(space)
    except EnvError:  # about observations; the wrappers refuse such actions
        return space


def _box(space: Any, where: str) -> spaces.Box:
    check_box(space, where)
    return spaces.Box(space.low, space.high, space.shape, space.dtype)
