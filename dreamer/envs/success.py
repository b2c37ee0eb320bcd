"""Record whether an episode has reached its goal, where the environment reports it."""

import math
from collections.abc import Mapping
from typing import Any

from dreamer.envs.base import Wrapper
from dreamer.envs.numeric import as_number

KEYS = "success", "is_success"  # the usual keys of `info`


class Success(Wrapper):
    """Adds "success" to each step's `info`: 1.0 if any step of the episode so far was a success, 0.0 if none was, and
    NaN if no step reports it. It wraps a `Checked`."""

    def __init__(self, env: Any, key: str | None = None) -> None:
        """key: the entry of `info` to read. None: one of KEYS, if it is there and true or false."""
        super().__init__(env)
        self.checked = env
        self.key, self.succeeded = key, math.nan

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.succeeded = math.nan
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        *answer, info = self.env.step(action)
        try:
            success = read_success(info, self.key)
        except ValueError as error:
            raise self.checked.error("step", str(error), "True or False") from None
        if math.isnan(self.succeeded):
            self.succeeded = success
        elif not math.isnan(success):
            self.succeeded = max(success, self.succeeded)
        return *answer, {**info, "success": self.succeeded}


def read_success(info: Mapping[str, Any], chosen_key: str | None) -> float:
    """Return what a step reports: 0.0 or 1.0, or NaN for nothing.

    chosen_key: the entry to read; None: one of KEYS, if it is true or false. Raises ValueError, whose text says what
    was found, if `chosen_key` has another value.
    """
    keys = KEYS if chosen_key is None else (chosen_key,)
    key = next((key for key in keys if key in info), None)
    if key is None:
        return math.nan
    value = float(as_number(info[key]))
    if value in (0, 1):
        return value
    if chosen_key is not None:
        raise ValueError(f"gave info[{key!r}] {info[key]!r:.80}")
    return math.nan
