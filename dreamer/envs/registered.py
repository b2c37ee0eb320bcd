"""Environments that are registered with gym or gymnasium, by their id."""

import sys
from copy import deepcopy

import gym

from dreamer.envs.lookup import advice, registry
from dreamer.envs.old_api import adapted
from dreamer.envs.rendering import explaining_backend, ready_for_mujoco
from dreamer.errors import EnvError, not_installed, one_line

LONGEST = 200  # characters of what an error repeats


def make_registered(benchmark, task_name, kwargs, renders):
    """Make an environment of gym or gymnasium, on gym's API. Raises EnvError, in one line, for what cannot be had.

    kwargs: further arguments of the library's `make`, by their names.
    """
    if "render_mode" in kwargs:
        raise EnvError("environment.kwargs: no render_mode: it follows from environment.from_pixels, and from --video")
    if benchmark == "gym":
        env = _make(gym, task_name, kwargs, renders)
        env.spec.max_episode_steps = kwargs.get("max_episode_steps", env.spec.max_episode_steps)  # gym forgets to
    else:
        try:
            import gymnasium  # late, because it is an option

            from dreamer.envs.gymnasium_env import GymnasiumEnv
        except ModuleNotFoundError:
            raise not_installed("gymnasium", "gymnasium") from None
        env = GymnasiumEnv(_make(gymnasium, task_name, kwargs, renders))
    return DrawnByMuJoCo(env) if renders and "mujoco" in sys.modules else env


class DrawnByMuJoCo(gym.Wrapper):
    """Explains in one line why the first frame cannot be drawn."""

    drawn = False

    def render(self):
        if self.drawn:
            return self.env.render()
        with explaining_backend("MuJoCo"):
            frame = self.env.render()
        self.drawn = True
        return frame


def _make(library, task_name, kwargs, renders):
    """library: gym, or gymnasium, whose names are the same."""
    arguments = {"disable_env_checker": True, **deepcopy(kwargs)}
    try:
        registry(library.__name__, task_name)
        if renders:
            with ready_for_mujoco():
                env = library.make(task_name, render_mode="rgb_array", **arguments)
        else:
            env = library.make(task_name, **arguments)
    except Exception as error:
        refusal = _refusal(library, task_name, kwargs, error)
        if refusal is None:
            raise
        raise refusal from None
    if renders and env.render_mode != "rgb_array":
        raise EnvError(f"environment.from_pixels: {task_name!r} does not render to arrays (render_mode rgb_array)")
    return adapted(env, task_name)


def _refusal(library, task_name, kwargs, error):
    """Return the EnvError that tells in one line what `make` raised; None where its traceback is needed."""
    name = library.__name__
    if isinstance(error, EnvError):
        return error
    if isinstance(error, (library.error.UnregisteredEnv, library.error.DeprecatedEnv)):
        hint = advice(name, task_name)
        if isinstance(error, library.error.NameNotFound) or "environment." in hint:
            return EnvError(f"environment.task_name: {name} has no {task_name!r}{hint}")
    if kwargs:
        reason = one_line(f"{type(error).__name__}: {error}")[:LONGEST]
        return EnvError(f"environment.kwargs: {name} cannot make {task_name!r} with {str(kwargs)[:LONGEST]}: {reason}")
    if isinstance(error, (library.error.Error, ImportError, TypeError, ValueError)):
        return EnvError(f"environment.task_name: {name} cannot make {task_name!r}: {one_line(error)}")
    return None
