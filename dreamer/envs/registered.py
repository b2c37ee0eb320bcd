"""Environments that are registered with gymnasium or gym, by their id."""

import sys
from collections.abc import Mapping
from copy import deepcopy
from types import ModuleType
from typing import Any

import gymnasium

from dreamer.envs.base import Wrapper
from dreamer.envs.gymnasium_env import GymnasiumEnv
from dreamer.envs.lookup import advice, registry
from dreamer.envs.old_api import adapt_old_api
from dreamer.envs.rendering import explaining_backend, ready_for_mujoco
from dreamer.envs.vectorized import FirstOfVector
from dreamer.errors import EnvError, one_line

MAX_CHARACTERS = 200  # characters that an error quotes


def make_registered(
    benchmark: str, task_name: str, kwargs: Mapping[str, Any], renders: bool, num_envs: int | None = None
) -> gymnasium.Env:
    """Make an environment of gymnasium or gym. Raises EnvError, in one line, if it cannot be made.

    kwargs: further arguments of the library's `make`. num_envs: number of environments that gymnasium steps as one, of
    which the first is returned; None: a plain environment.
    """
    if "render_mode" in kwargs:
        raise EnvError("environment.kwargs: no render_mode: it follows from environment.from_pixels, and from --video")
    if benchmark == "gym":
        from dreamer.envs import gym_env  # late: gym is imported only for this benchmark

        env: Any = gym_env.GymEnv(_make(gym_env.gym, task_name, kwargs, renders))
        limit = kwargs.get("max_episode_steps", env.spec.max_episode_steps)  # gym does not copy it to `spec`
    else:
        env = _make(gymnasium, task_name, kwargs, renders, num_envs)
        limit = env.spec.max_episode_steps
    return as_gymnasium(env, limit, renders)


def as_gymnasium(env: Any, max_episode_steps: int | None, renders: bool) -> gymnasium.Env:
    """Return an environment as the wrappers for all benchmarks take it."""
    env = GymnasiumEnv(env, max_episode_steps)
    return DrawnByMuJoCo(env) if renders and "mujoco" in sys.modules else env


class DrawnByMuJoCo(Wrapper):
    """Explains in one line why the first frame cannot be drawn."""

    drawn = False

    def render(self) -> Any:
        if self.drawn:
            return self.env.render()
        with explaining_backend("MuJoCo"):
            frame = self.env.render()
        self.drawn = True
        return frame


def _make(
    library: ModuleType, task_name: str, kwargs: Mapping[str, Any], renders: bool, num_envs: int | None = None
) -> Any:
    """Make an environment with a library, gymnasium or gym, which have the same names."""
    if num_envs is None:
        make, arguments = library.make, {"disable_env_checker": True, **deepcopy(kwargs)}
    else:
        make, arguments = library.make_vec, {"num_envs": num_envs, **deepcopy(kwargs)}
    try:
        registry(library.__name__, task_name)
        if renders:
            with ready_for_mujoco():
                env = make(task_name, render_mode="rgb_array", **arguments)
        else:
            env = make(task_name, **arguments)
    except Exception as error:
        refusal = _refusal(library, task_name, kwargs, error)
        if refusal is None:
            raise
        raise refusal from None
    if renders and env.render_mode != "rgb_array":
        raise EnvError(f"environment.from_pixels: {task_name!r} does not render to arrays (render_mode rgb_array)")
    return FirstOfVector(env) if num_envs is not None else adapt_old_api(env, task_name)


def _refusal(library: ModuleType, task_name: str, kwargs: Mapping[str, Any], error: Exception) -> EnvError | None:
    """Return the EnvError that tells in one line what `make` raised; None if its traceback is needed."""
    name = library.__name__
    if isinstance(error, EnvError):
        return error
    if isinstance(error, (library.error.UnregisteredEnv, library.error.DeprecatedEnv)):
        hint = advice(name, task_name)
        if isinstance(error, library.error.NameNotFound) or "environment." in hint:
            return EnvError(f"environment.task_name: {name} has no {task_name!r}{hint}")
    if kwargs:
        reason = one_line(f"{type(error).__name__}: {error}")[:MAX_CHARACTERS]
        arguments = str(kwargs)[:MAX_CHARACTERS]
        return EnvError(f"environment.kwargs: {name} cannot make {task_name!r} with {arguments}: {reason}")
    if isinstance(error, (library.error.Error, ImportError, TypeError, ValueError)):
        return EnvError(f"environment.task_name: {name} cannot make {task_name!r}: {one_line(error)}")
    return None
