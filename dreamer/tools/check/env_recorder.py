"""Record what an environment itself returns, before its values are checked and wrapped."""

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
class PartStatistics:
    """Describes the values of one part of the observation over all steps."""

    part: Part
    low: float = math.inf  # smallest number
    high: float = -math.inf  # largest number
    out_of_bounds: str = ""  # the first number outside of its space, as text
    first_value: bytes = b""
    has_changed: bool = False  # whether any later value differs from the first
    array_is_reused: bool = False  # whether a step changed the array that the previous step had returned
    previous_array: Any = None  # the array of the previous step
    previous_bytes: bytes = b""  # its content when it was returned

    def record(self, observation: Any, count: int) -> None:
        """Add one observation. count: number of earlier ones."""
        if self.previous_array is not None and self.previous_array.tobytes() != self.previous_bytes:
            self.array_is_reused = True
        value = self.part.of(observation)
        array = np.asarray(as_array(value))
        array_bytes = array.tobytes()
        self.first_value = self.first_value or array_bytes
        self.has_changed = self.has_changed or array_bytes != self.first_value
        is_compared = isinstance(value, np.ndarray) and count < COMPARED
        self.previous_array, self.previous_bytes = (value, array_bytes) if is_compared else (None, b"")
        self.low, self.high = min(self.low, float(array.min())), max(self.high, float(array.max()))
        if isinstance(self.part.space, spaces.Box) and not self.out_of_bounds:
            self.out_of_bounds = describe_out_of_bounds(array, self.part.space)

    def summary(self) -> dict[str, Any]:
        """Return the part as plain values, for JSON."""
        kind = "picture" if layout(self.part.space) else "numbers"
        bounds = {"low": self.low, "high": self.high} if self.low <= self.high else {}
        return {
            "name": self.part.name,
            "as": kind,
            "space": self.part.describe(),
            **bounds,
            "changes": self.has_changed,
        }


def describe_out_of_bounds(array: np.ndarray, space: spaces.Box) -> str:
    """Return, as text, the first number that is outside of its bounds; "" if there is none."""
    if array.shape != space.shape:
        return f"has the shape {array.shape}, but its space {space.shape}"
    indices = np.argwhere((array < space.low) | (array > space.high))
    if not len(indices):
        return ""
    index = tuple(indices[0].tolist())
    if len(index) == 0:
        at = ""
    elif len(index) == 1:
        at = f" at {index[0]}"
    else:
        at = f" at {index}"
    return f"holds {array[index]:g}{at}, but its space ends at {space.low[index]:g} and {space.high[index]:g}"


class EnvRecorder(Wrapper):
    """Records observations and rewards of an environment, also faulty ones, and passes them on."""

    def __init__(self, env: Any, observations_are_seen: bool) -> None:
        """observations_are_seen: whether the agent sees the environment's observations, not its rendering."""
        super().__init__(env)
        pictures, vectors = split(env.observation_space) if observations_are_seen else ([], [])
        self.parts = [PartStatistics(part) for part in (*pictures, *vectors)]
        self.observations = 0
        self.rewards: list[float] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        result = self.env.reset(seed=seed, options=options)
        with suppress(Exception):  # the checks say what is wrong with such an answer
            self.record(result[0])
        return result

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        with suppress(Exception):
            self.record(result[0])
            reward = float(as_number(result[1]))
            if math.isfinite(reward):
                self.rewards.append(reward)
        return result

    def record(self, observation: Any) -> None:
        """Add the parts of one observation."""
        for part in self.parts:
            part.record(observation, self.observations)
        self.observations += 1


def insert_recorder(env: Any, observations_are_seen: bool) -> EnvRecorder:
    """Put an `EnvRecorder` between an environment and the checks of its wrappers, and return it."""
    layer = env
    while not isinstance(layer, Checked):
        layer = layer.env
    layer.env = EnvRecorder(layer.env, observations_are_seen)
    return layer.env
