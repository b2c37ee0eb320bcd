"""Environments that a function of Python makes: `train(config, env=make_env)`."""

import inspect
import pickle
import weakref
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import gymnasium
from gymnasium.vector.utils import CloudpickleWrapper

from dreamer.envs.old_api import adapted
from dreamer.envs.registered import finished
from dreamer.envs.rendering import ready_for_mujoco
from dreamer.errors import EnvError, in_words


class Maker:
    """A function that makes environments, in this process or in others, even if a notebook defines it.

    The function takes no arguments or, as gymnasium's own environments do, `render_mode`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        """Raises EnvError if it is no function."""
        if isinstance(function, gymnasium.Env) or not callable(function):
            raise EnvError(f"env: expected a function that makes an environment, or an id, not {function!r:.100}")
        self.function = function
        self.name = getattr(function, "__qualname__", type(function).__name__).rpartition(".")[2]
        self.last: Callable[[], Any] = lambda: None  # a weak reference to the environment made last

    def __call__(self, renders: bool) -> Any:
        """Make an environment. Raises EnvError if it is none, or not a new one."""
        parameters = inspect.signature(self.function).parameters.values()
        takes_mode = any(each.name == "render_mode" or each.kind == each.VAR_KEYWORD for each in parameters)
        env = self.function(render_mode="rgb_array") if renders and takes_mode else self.function()
        if not (hasattr(env, "reset") and hasattr(env, "action_space")):
            raise EnvError(f"env: {self.name} returned {env!r:.100}; expected an environment of gymnasium")
        if env is self.last():
            raise EnvError(f"env: {self.name} returned the same environment again; let it make one at each call")
        with suppress(TypeError):  # there are objects that cannot have one
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


def make_given(maker: Maker | None, task_name: str, renders: bool) -> gymnasium.Env:
    """Make an environment by a function. Raises EnvError, in one line, if there is none: a command line has none."""
    if maker is None:
        where = f"environment.benchmark: python: the function {task_name} of a Python program made this environment"
        raise EnvError(f"{where}; only such a program can: dreamer.train(…, env={task_name})")
    with ready_for_mujoco() if renders else nullcontext():
        env = maker(renders)
    if renders and getattr(env, "render_mode", None) != "rgb_array":
        advice = "let it take render_mode and pass it on"
        raise EnvError(
            f"environment.from_pixels: {task_name} does not render to arrays (render_mode rgb_array); {advice}"
        )
    env = adapted(env, task_name)
    return finished(env, getattr(env.spec, "max_episode_steps", None), renders)
