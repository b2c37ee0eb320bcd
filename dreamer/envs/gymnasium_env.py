"""gymnasium's environments on gym's API. gymnasium is an option: nothing else imports it."""

from contextlib import contextmanager

import gym
import gymnasium
import numpy as np
from gym import spaces

from dreamer.errors import EnvError


class GymnasiumEnv(gym.Env):
    """An environment of gymnasium with gym's spaces; what it observes and takes stays as it is.

    Raises EnvError for a space that gym does not have, and gym's error where gymnasium's renderer has one.
    """

    def __init__(self, env):
        self.env = env
        self.metadata, self.render_mode = env.metadata, env.render_mode
        self.max_episode_steps = env.spec.max_episode_steps
        try:
            self.observation_space, self.action_space = convert(env.observation_space), convert(env.action_space)
        except EnvError as error:
            raise EnvError(f"{env.spec.id}: {error}") from None
        self.left_out = list(texts(env.observation_space))  # their names

    def reset(self, *, seed=None, options=None):
        with as_gym_says():
            return self.env.reset(seed=seed, options=options)

    def step(self, action):
        return self.env.step(action)

    def render(self):
        with as_gym_says():
            return self.env.render()

    def close(self):
        self.env.close()

    @property
    def innermost(self):
        """gymnasium's environment itself, which is asked for its state."""
        return self.env.unwrapped


@contextmanager
def as_gym_says():
    """An error of gymnasium, such as a library for rendering that is not installed, becomes gym's."""
    try:
        yield
    except gymnasium.error.Error as error:
        raise gym.error.Error(str(error)) from error


def convert(space):
    """A space of gym that holds the same. In a Dict text is left out. Raises EnvError for what cannot be converted."""
    if isinstance(space, gymnasium.spaces.Box):
        return spaces.Box(space.low, space.high, space.shape, space.dtype)
    if isinstance(space, gymnasium.spaces.Discrete):
        return spaces.Discrete(int(space.n), start=int(space.start))
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return spaces.MultiBinary(space.shape)
    if isinstance(space, gymnasium.spaces.MultiDiscrete) and not np.any(space.start):  # gym's begins at 0
        return spaces.MultiDiscrete(space.nvec)
    if isinstance(space, gymnasium.spaces.Tuple):
        return spaces.Tuple([convert(part) for part in space.spaces])
    if isinstance(space, gymnasium.spaces.Dict):
        parts = {key: convert(part) for key, part in space.spaces.items() if not is_text(part)}
        if parts:
            return spaces.Dict(parts)
    raise EnvError(f"no {' '.join(str(space).split())} can be observed or taken as an action")


def texts(space, name=""):
    """Yield the names of what `convert` leaves out, those of inner parts with the names around them: outer/inner."""
    if isinstance(space, gymnasium.spaces.Dict):
        for key, part in space.spaces.items():
            yield from [f"{name}{key}"] if is_text(part) else texts(part, f"{name}{key}/")
    elif isinstance(space, gymnasium.spaces.Tuple):
        for place, part in enumerate(space.spaces):
            yield from texts(part, f"{name}{place}/")


def is_text(space):
    return space.dtype is not None and space.dtype.kind == "U"
