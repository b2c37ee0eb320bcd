"""Environments from a Python function: `train(config, env=make_env)`, or `--env my_module:make_env`."""

import importlib
import inspect
import pickle
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import cache
from typing import Any

import gymnasium
from gymnasium.vector.utils import CloudpickleWrapper

from dreamer.envs.old_api import adapt_old_api
from dreamer.envs.registered import as_gymnasium
from dreamer.envs.rendering import ready_for_mujoco
from dreamer.envs.vectorized import FirstOfVector, is_vectorized
from dreamer.errors import EnvError, in_words


class Maker:
    """A function that makes environments, in this process or in others, even if a notebook defines it.

    The function takes no arguments or, as gymnasium's own environments do, `render_mode`. It may take `num_envs`, and
    return a `gymnasium.vector.VectorEnv`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        """Raises EnvError if it is no function."""
        if isinstance(function, gymnasium.Env) or not callable(function):
            raise EnvError(f"env: expected a function that makes an environment, or an id, not {function!r:.100}")
        self.function = function
        self.name = getattr(function, "__qualname__", type(function).__name__).rpartition(".")[2]
        self.last: Callable[[], Any] = lambda: None  # a weak reference to the environment made last

    def __call__(self, renders: bool, kwargs: Mapping[str, Any] | None = None, num_envs: int | None = None) -> Any:
        """Make an environment. kwargs: further arguments. num_envs: number of environments that are stepped as one.

        Raises EnvError if the function returns anything but a new environment.
        """
        parameters = inspect.signature(self.function).parameters.values()
        names = {parameter.name for parameter in parameters}
        takes_any_keyword = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
        arguments: dict[str, Any] = {}
        if renders and ("render_mode" in names or takes_any_keyword):
            arguments["render_mode"] = "rgb_array"
        if num_envs is not None and "num_envs" in names:
            arguments["num_envs"] = num_envs
        env = self.function(**(kwargs or {}), **arguments)
        if not (hasattr(env, "reset") and hasattr(env, "action_space")):
            raise EnvError(f"env: {self.name} returned {env!r:.100}; expected an environment of gymnasium")
        if env is self.last():
            raise EnvError(f"env: {self.name} returned the same environment again; let it make one at each call")
        with suppress(TypeError):  # some objects do not allow weak references
            self.last = weakref.ref(env)
        return env

    def check_sending(self, reason: str) -> None:
        """Raise EnvError if the function cannot be sent to another process. reason: why that is needed."""
        try:
            pickle.dumps(self)
        except Exception as error:
            advice = "define it at the top of a module"
            raise EnvError(f"env: {reason} sends {self.name} to other processes: {in_words(error)}; {advice}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {"sent": CloudpickleWrapper(self.function)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["sent"].fn)  # type: ignore[misc]


@cache
def named_maker(task_name: str) -> Maker | None:
    """Return the maker for `my_module:make_env`, a function or a class of a module; None for any other task name."""
    module, _, name = task_name.rpartition(":")
    if not (module and name.isidentifier()):
        return None
    with suppress(Exception):  # gymnasium gets the name next, and reports why it cannot be imported
        function = getattr(importlib.import_module(module), name, None)
        if callable(function) and name not in gymnasium.registry:
            return Maker(function)
    return None


def make_from_function(
    maker: Maker | None,
    task_name: str,
    renders: bool,
    kwargs: Mapping[str, Any] | None = None,
    num_envs: int | None = None,
) -> gymnasium.Env:
    """Make an environment by a function. kwargs, num_envs: further arguments of the function.

    Raises EnvError, in one line, if there is no function: benchmark python has none on a command line.
    """
    if maker is None:
        where = f"environment.benchmark: python: the function {task_name} of a Python program made this environment"
        raise EnvError(f"{where}; only such a program can: dreamer.train(…, env={task_name})")
    with ready_for_mujoco() if renders else nullcontext():
        env = maker(renders, kwargs, num_envs)
    if renders and getattr(env, "render_mode", None) != "rgb_array":
        advice = "let it take render_mode and pass it on"
        raise EnvError(
            f"environment.from_pixels: {task_name} does not render to arrays (render_mode rgb_array); {advice}"
        )
    env = FirstOfVector(env) if is_vectorized(env) else adapt_old_api(env, task_name)
    return as_gymnasium(env, getattr(env.spec, "max_episode_steps", None), renders)
