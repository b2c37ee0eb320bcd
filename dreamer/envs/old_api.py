"""Environments with the API of gym before 0.26 on the API of gymnasium."""

import inspect
from collections.abc import Mapping
from typing import Any

from dreamer.envs.warn import warn_once
from dreamer.errors import WrongAnswer

GYMS_OWN = "OrderEnforcing", "TimeLimit"  # the wrappers that `make` adds
STEP = "(observation, reward, terminated, truncated, info)"


def adapt_old_api(env: Any, name: str) -> Any:
    """Return an environment that `make` of gymnasium or gym made, with an `Adapter` below the wrappers of `make`.

    name: of the environment, for the line that says what was adapted.
    """
    outer = None
    inner = env
    while type(inner).__name__ in GYMS_OWN and type(inner).__module__.split(".")[0] in ("gym", "gymnasium"):
        outer, inner = inner, inner.env
    if outer is None:
        return Adapter(env, name)
    outer.env = Adapter(inner, name)
    return env


class Adapter:
    """Calls an environment by its old API and returns what gymnasium's API returns. All other attributes are those of
    the environment."""

    def __init__(self, env: Any, name: str) -> None:
        self.env, self.name = env, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, **keywords: Any) -> Any:
        """Call `reset` with the keywords that it takes. If it takes no `seed`, call the method `seed` before."""
        taken = {key: value for key, value in keywords.items() if takes(self.env, key)}
        seed = keywords.get("seed")
        if seed is not None and "seed" not in taken:
            self.adapt("reset takes no seed")
            if callable(getattr(self.env, "seed", None)):
                self.env.seed(seed)
        answer = self.env.reset(**taken)
        has_info = isinstance(answer, tuple) and not self.is_observation(answer)
        if answer is None or has_info:
            return answer
        self.adapt("reset returns the observation alone")
        return answer, {}

    def is_observation(self, answer: tuple) -> bool:
        """Return whether a tuple is an observation alone, without an info behind it."""
        space = self.env.observation_space
        if type(space).__name__ != "Tuple" or len(answer) != len(space.spaces):
            return False
        is_observation_and_info = (
            len(answer) == 2 and isinstance(answer[0], (tuple, list)) and isinstance(answer[1], Mapping)
        )
        return not is_observation_and_info

    def step(self, action: Any) -> tuple:
        answer = self.env.step(action)
        if isinstance(answer, tuple) and len(answer) == 5:
            return answer
        if not (isinstance(answer, tuple) and len(answer) == 4 and isinstance(answer[3], Mapping)):
            count = len(answer) if isinstance(answer, tuple) else "no tuple of"
            raise WrongAnswer(f"gave {count} values; expected {STEP}")
        self.adapt("step returns four values")
        observation, reward, done, info = answer
        truncated = bool(info.get("TimeLimit.truncated", False))
        return observation, reward, False if truncated else done, truncated, info

    def adapt(self, what: str) -> None:
        """Warn that the environment has the old API. what: a sign of it."""
        meaning = 'done is taken as terminated, or as truncated where info has "TimeLimit.truncated"'
        line = f"{self.name!r} has the API of before gym 0.26 ({what}), to which it is adapted: {meaning}"
        warn_once(f"environment.task_name: {line}", about=("old API", self.name))


def takes(env: Any, keyword: str) -> bool:
    """Return whether `reset` of an environment, and of all that it wraps, takes a keyword."""
    while env is not None:
        try:
            parameters = inspect.signature(env.reset).parameters
        except (TypeError, ValueError):  # it has no signature
            return True
        kinds = [parameter.kind for parameter in parameters.values()]
        if keyword not in parameters and inspect.Parameter.VAR_KEYWORD not in kinds:
            return False
        if keyword in parameters and getattr(env, "unwrapped", None) is env:
            return True  # its attribute `env` may belong to another library
        env = vars(env).get("env") if hasattr(env, "__dict__") else None
    return True
