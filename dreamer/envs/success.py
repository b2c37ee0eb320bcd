"""Whether an episode has reached its goal, where the environment says so."""

import math
from collections.abc import Mapping
from typing import Any

from dreamer.envs.base import Wrapper
from dreamer.envs.numeric import as_number

KEYS = "success", "is_success"  # of `info`, by custom


class Success(Wrapper):
    """Adds "success" to each step's `info`: 1.0 if any step of the episode so far was a success, 0.0 if none was, and
    NaN if none has said. It stands above `Checked`."""

    def __init__(self, env: Any, key: str | None = None) -> None:
        """key: the entry of `info` that says it. None: one of KEYS, if it is there and true or false."""
        super().__init__(env)
        self.checked = env
        self.key, self.succeeded = key, math.nan

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.succeeded = math.nan
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        *answer, info = self.env.step(action)
        said = self.read_success(info)
        if not math.isnan(said):
            self.succeeded = max(said, 0.0 if math.isnan(self.succeeded) else self.succeeded)
        return *answer, {**info, "success": self.succeeded}

    def read_success(self, info: Mapping[str, Any]) -> float:
        """Return what a step says: 0.0 or 1.0, or NaN for nothing. Raises EnvError if `key` has another value."""
        names = KEYS if self.key is None else (self.key,)
        found = next((name for name in names if name in info), None)
        if found is None:
            return math.nan
        value = float(as_number(info[found]))
        if value not in (0, 1):
            if self.key is not None:
                raise self.checked.error("step", f"gave info[{found!r}] {info[found]!r:.80}", "True or False")
            return math.nan
        return value
