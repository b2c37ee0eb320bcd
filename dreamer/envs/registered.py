"""Environments that are registered with gym or gymnasium, by their id."""

import sys
from importlib import metadata

import gym

from dreamer.envs.errors import EnvError, nearest, not_installed, one_line
from dreamer.envs.old_api import adapted
from dreamer.envs.rendering import explaining_backend, ready_for_mujoco


def make_registered(benchmark, task_name, renders):
    """Make an environment of gym or gymnasium, on gym's API. Raises EnvError, in one line, for what cannot be had."""
    if benchmark == "gym":
        env = _make(gym, task_name, renders)
    else:
        try:
            import gymnasium  # late, because it is an option

            from dreamer.envs.gymnasium_env import GymnasiumEnv
        except ModuleNotFoundError:
            raise not_installed("gymnasium", "gymnasium") from None
        env = GymnasiumEnv(_make(gymnasium, task_name, renders))
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


def _make(library, task_name, renders):
    """library: gym, or gymnasium, whose names are the same."""
    name = library.__name__
    try:
        if name == "gymnasium" and task_name not in library.registry:
            for plugin in metadata.entry_points(group="gymnasium.envs", name=task_name.partition("/")[0]):
                plugin.load()()  # registers all of MinAtar/…, say
        if renders:
            with ready_for_mujoco():
                env = library.make(task_name, disable_env_checker=True, render_mode="rgb_array")
        else:
            env = library.make(task_name, disable_env_checker=True)
    except EnvError:
        raise
    except library.error.NameNotFound:
        hint = nearest(task_name.split(":")[-1], library.envs.registry)
        raise EnvError(f"environment.task_name: {name} has no {task_name!r}{hint}") from None
    except (library.error.Error, ImportError, TypeError, ValueError) as error:
        raise EnvError(f"environment.task_name: {name} cannot make {task_name!r}: {one_line(error)}") from None
    if renders and env.render_mode != "rgb_array":
        raise EnvError(f"environment.from_pixels: {task_name!r} does not render to arrays (render_mode rgb_array)")
    return adapted(env, task_name)
