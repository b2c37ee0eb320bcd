"""Keep notes on what an environment itself returns, before it is checked and wrapped."""

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from dreamer.envs.base import Wrapper
from dreamer.envs.numeric import as_array, as_number
from dreamer.envs.observation import Part, layout, split
from dreamer.envs.wrappers import Checked

COMPARED = 500  # number of observations that are compared with the content of the same array a step later


@dataclass
class SeenPart:
    """Keeps notes on one part of the observation, over all steps."""

    part: Part
    low: float = math.inf  # smallest number
    high: float = -math.inf  # largest number
    outside: str = ""  # the first number outside of its space, as text
    first: bytes = b""  # the first value
    changes: bool = False  # whether any later value differs from the first
    reused: bool = False  # whether a step changed the array that the previous step had returned
    kept: Any = None  # the array of the previous step
    copied: bytes = b""  # its content when it was returned

    def note(self, observation: Any, count: int) -> None:
        """Note one observation. count: number of earlier ones."""
        if self.kept is not None and self.kept.tobytes() != self.copied:
            self.reused = True
        value = self.part.of(observation)
        array = np.asarray(as_array(value))
        numbers = array.tobytes()
        self.first = self.first or numbers
        self.changes = self.changes or numbers != self.first
        compared = isinstance(value, np.ndarray) and count < COMPARED
        self.kept, self.copied = (value, numbers) if compared else (None, b"")
        self.low, self.high = min(self.low, float(array.min())), max(self.high, float(array.max()))
        if isinstance(self.part.space, spaces.Box) and not self.outside:
            self.outside = beyond(array, self.part.space)

    def summary(self) -> dict[str, Any]:
        """Return the part as plain values, for JSON."""
        kind = "picture" if layout(self.part.space) else "numbers"
        bounds = {"low": self.low, "high": self.high} if self.low <= self.high else {}
        return {"name": self.part.name, "as": kind, "space": self.part.describe(), **bounds, "changes": self.changes}


def beyond(array: np.ndarray, space: spaces.Box) -> str:
    """Return, as text, the first number that is outside of its bounds; "" if there is none."""
    if array.shape != space.shape:
        return f"has the shape {array.shape}, but its space {space.shape}"
    wrong = np.argwhere((array < space.low) | (array > space.high))
    if not len(wrong):
        return ""
    place = tuple(wrong[0].tolist())
    at = f" at {place[0] if len(place) == 1 else place}" if place else ""
    return f"holds {array[place]:g}{at}, but its space ends at {space.low[place]:g} and {space.high[place]:g}"


class Watched(Wrapper):
    """Notes observations and rewards of an environment, also faulty ones, and passes them on."""

    def __init__(self, env: Any, observed: bool) -> None:
        """observed: whether the agent sees the environment's observations, not its rendering."""
        super().__init__(env)
        pictures, numbers = split(env.observation_space) if observed else ([], [])
        self.parts = [SeenPart(part) for part in (*pictures, *numbers)]
        self.observations = 0
        self.rewards: list[float] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        answer = self.env.reset(seed=seed, options=options)
        with suppress(Exception):  # the checks say what is wrong with such an answer
            self.note(answer[0])
        return answer

    def step(self, action: Any) -> Any:
        answer = self.env.step(action)
        with suppress(Exception):
            self.note(answer[0])
            reward = float(as_number(answer[1]))
            self.rewards += [reward] if math.isfinite(reward) else []
        return answer

    def note(self, observation: Any) -> None:
        """Note the parts of one observation."""
        for seen in self.parts:
            seen.note(observation, self.observations)
        self.observations += 1


def watched(env: Any, observed: bool) -> Watched:
    """Put a `Watched` between an environment and the checks of its wrappers, and return it."""
    layer = env
    while not isinstance(layer, Checked):
        layer = layer.env
    layer.env = Watched(layer.env, observed)
    return layer.env
