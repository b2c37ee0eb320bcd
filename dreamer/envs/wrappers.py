"""Small wrappers with one purpose each."""

import math
import reprlib
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from dreamer.envs.base import ObservationWrapper, Wrapper
from dreamer.envs.calls import call
from dreamer.envs.images import fits
from dreamer.envs.numeric import as_arrays, as_number
from dreamer.envs.observation import Part, size, split, vector
from dreamer.envs.warn import warn_once
from dreamer.errors import EnvError, EnvFault

LARGEST = 1e18  # absolute value of rewards and observations: their squares are still finite in float32
LARGEST_SIDE = 2048  # pixels of a frame: 13 MB and 24 ms to shrink it, at each step


class Checked(Wrapper):
    """Checks what an environment returns, before it is used or stored. Numbers of other libraries become NumPy's; no
    value is changed.

    Raises EnvFault for whatever the environment itself raises, and EnvError for a wrong answer: what was found, from
    which call and when, and what was expected. Episode 0 begins with the first reset.
    """

    def __init__(self, env: gymnasium.Env, observed: bool = True) -> None:
        """observed: whether its observations are used, and so checked."""
        super().__init__(env)
        self.episode, self.env_step = -1, 0
        self.observed = observed
        pictures, numbers = split(env.observation_space) if observed else ([], [])
        self.pictures = pictures
        self.numbers = [(part, isinstance(part.space, spaces.Box), size([part])) for part in numbers]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.episode, self.env_step = self.episode + 1, 0
        observation, info = self.call("reset", "(observation, info)", seed=seed, options=options)
        return self.checked("reset", observation, info), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.env_step += 1
        answer = self.call("step", "(observation, reward, terminated, truncated, info)", action)
        observation, reward, terminated, truncated, info = answer
        number = as_number(reward)
        if not -LARGEST <= float(number) <= LARGEST:
            raise self.error("step", f"gave the reward {show(reward)}", f"a number from {-LARGEST:g} to {LARGEST:g}")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if as_number(flag) not in (0, 1):
                raise self.error("step", f"gave {name} {show(flag)}", "True or False")
        observation = self.checked("step", observation, info)
        return observation, number, bool(as_number(terminated)), bool(as_number(truncated)), info

    def render(self) -> np.ndarray:  # type: ignore[override]
        frame = self.call("render")
        is_array = isinstance(frame, np.ndarray) and not isinstance(frame, np.ma.MaskedArray)
        is_image = is_array and frame.dtype == np.uint8 and frame.ndim == 3
        if not (is_image and frame.shape[2] == 3 and min(frame.shape) > 0 and max(frame.shape) <= LARGEST_SIDE):
            expected = f"an array uint8 (height, width, 3) of 1 to {LARGEST_SIDE} pixels a side"
            raise self.error("render", f"gave the frame {show(frame)}", expected)
        return frame

    def close(self) -> None:
        """Close the environment. If that fails, only print a warning: the run is over by then."""
        try:
            call("the environment's close", self.env.close)
        except (EnvError, EnvFault) as error:
            warn_once(str(error))

    def call(self, name: str, parts: str = "", *arguments: Any, **keywords: Any) -> Any:
        """Return what a method of the environment returns. parts: names of the parts of the tuple that it must return,
        as text; "": anything."""
        answer = call(self.where(name), getattr(self.env, name), *arguments, **keywords)
        if parts and not (isinstance(answer, tuple) and len(answer) == parts.count(",") + 1):
            raise self.error(name, f"gave {show(answer)}", parts)
        return answer

    def checked(self, name: str, observation: Any, info: Any) -> Any:
        """Return the observation that a method returned, as NumPy's arrays and numbers if it is used."""
        if not isinstance(info, Mapping):
            raise self.error(name, f"gave the info {show(info)}", "a mapping")
        if not self.observed:
            return observation
        try:
            arrays = as_arrays(observation, self.env.observation_space)
            is_valid = all(fits(part.of(arrays), part.space) for part in self.pictures)
            for part, is_box, length in self.numbers:
                is_valid = is_valid and _are_numbers(part, is_box, length, arrays)
        except Exception:  # gymnasium raises different errors for what is not in the space
            is_valid = False
        if not is_valid:
            expected = f"one of {show(self.env.observation_space)}, its numbers from {-LARGEST:g} to {LARGEST:g}"
            raise self.error(name, f"gave the observation {show(observation)}", expected)
        return arrays

    def where(self, name: str) -> str:
        """Return the beginning of an error about a call."""
        return f"the environment's {name} (episode {self.episode}, env step {self.env_step})"

    def error(self, name: str, what: str, expected: str) -> EnvError:
        """Return the error about a call: what it gave, and what was expected."""
        return EnvError(f"{self.where(name)} {what}; expected {expected}")


def _are_numbers(part: Part, is_box: bool, length: int, observation: Any) -> bool:
    """Return whether an observation holds real numbers for a part, of the right count and none too large.

    is_box: whether the part is a Box; one that is the whole observation must have its shape. length: of its vector.
    """
    value = part.of(observation)
    numbers: Any = np.asarray(value) if is_box else spaces.flatten(part.space, value)
    has_shape = bool(part.path) or not is_box or numbers.shape == part.space.shape
    if numbers.size != length or not has_shape:
        return False
    if numbers.dtype.kind == "c" or isinstance(value, np.ma.MaskedArray):
        return False
    return float(np.abs(numbers).max(initial=0)) <= LARGEST


def show(value: Any) -> str:
    """Return a value in a few words, on one line."""
    if isinstance(value, np.ma.MaskedArray):
        return f"a masked array of {value.dtype} {value.shape}"
    if isinstance(value, np.ndarray) and value.size > 1 and value.dtype.kind in "biuf":
        return f"{value.dtype} {value.shape} of {value.min()} to {value.max()}"
    is_number = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)
    text = " ".join(_short.repr(value.item() if is_number else value).split())
    return text if len(text) <= 80 else f"{text[:80]} …"


_short = reprlib.Repr()
_short.maxother = 80


class ActionRepeat(Wrapper):
    """Repeats each action `amount` times, sums the rewards and stops at the episode's end.

    `info["env_steps"]` is the number of simulator steps that this took. `max_agent_steps` is the largest number of
    decisions in an episode (None: no limit), `frames_per_second` the number of decisions in a second of simulated time
    (None: unknown).
    """

    def __init__(self, env: gymnasium.Env, amount: int) -> None:
        super().__init__(env)
        self.amount = amount
        limit = env.spec.max_episode_steps if env.spec else getattr(env, "max_episode_steps", None)
        self.max_agent_steps = limit and math.ceil(limit / amount)
        rate = _steps_per_second(env)
        self.frames_per_second = rate and rate / amount

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total, env_steps, ended = 0.0, 0, False
        while env_steps < self.amount and not ended:
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)  # a sum of a type with few digits might overflow
            env_steps += 1
            ended = terminated or truncated
        return observation, total, terminated, truncated, {**info, "env_steps": env_steps}


def _steps_per_second(env: Any) -> float | None:
    """Return the rate of simulator steps in the metadata of an environment; None if there is none."""
    try:
        rate = float(env.metadata.get("render_fps") or env.metadata.get("video.frames_per_second"))
    except (AttributeError, TypeError, ValueError):
        return None
    return rate if 0 < rate < math.inf else None


class PixelObservation(ObservationWrapper):
    """Shows what the environment renders in place of its observation: uint8 (3, height, width)."""

    def __init__(self, env: gymnasium.Env, height: int, width: int) -> None:
        super().__init__(env)
        self.size = (width, height)
        self.observation_space = spaces.Box(0, 255, (3, height, width), np.uint8)

    def observation(self, observation: Any) -> np.ndarray:
        frame: Any = self.env.render()
        if frame.shape[1::-1] != self.size:
            frame = np.asarray(Image.fromarray(frame).resize(self.size, Image.Resampling.BILINEAR))
        return np.array(frame.transpose(2, 0, 1), order="C")  # a copy: the environment may overwrite its frame


class Grayscale(ObservationWrapper):
    """Shows the brightness of pixels, 0.299 red + 0.587 green + 0.114 blue: uint8 (1, height, width)."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        _, height, width = env.observation_space.shape or ()
        self.observation_space = spaces.Box(0, 255, (1, height, width), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        red, green, blue = (plane.astype(np.uint32) for plane in observation)
        return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)[None]


class VectorObservation(ObservationWrapper):
    """Shows all numbers of an observation as one vector, float32 (size,)."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        _, self.numbers = split(env.observation_space)
        self.observation_space = spaces.Box(-np.inf, np.inf, (size(self.numbers),), np.float32)

    def observation(self, observation: Any) -> np.ndarray:
        return vector(self.numbers, observation)
