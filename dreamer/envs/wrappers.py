"""Small wrappers with one purpose each, on gym's 0.26 API."""

import math
import reprlib
from collections.abc import Mapping

import gym
import numpy as np
from gym import spaces
from PIL import Image

from dreamer.envs.calls import call
from dreamer.envs.images import fits
from dreamer.envs.numeric import as_arrays, as_number
from dreamer.envs.observation import size, split, vector
from dreamer.envs.warn import warn_once
from dreamer.errors import EnvError, EnvFault

LARGEST = 1e18  # of rewards and parts of observations: their squares are still numbers in float32
LARGEST_SIDE = 2048  # pixels of a frame: 13 MB and 24 ms to shrink it, at each step


class Checked(gym.Wrapper):
    """Looks at what an environment returns, before anything is made or kept of it. Numbers of other libraries become
    NumPy's; no value is changed.

    Raises EnvFault for what the environment itself raises, and else EnvError: what came, from which call and when, and
    what was expected. Episodes are counted from when it was made, whose own reset is that of episode 0.
    """

    def __init__(self, env, observed=True):
        """observed: whether its observations are used, so that they count."""
        super().__init__(env)
        self.episode, self.env_step = -1, 0
        self.observed = observed
        pictures, numbers = split(env.observation_space) if observed else ([], [])
        self.pictures = pictures
        self.numbers = [(part, isinstance(part.space, spaces.Box), size([part])) for part in numbers]

    def reset(self, **keywords):
        self.episode, self.env_step = self.episode + 1, 0
        observation, info = self.call("reset", "(observation, info)", **keywords)
        return self.checked("reset", observation, info), info

    def step(self, action):
        self.env_step += 1
        answer = self.call("step", "(observation, reward, terminated, truncated, info)", action)
        observation, reward, terminated, truncated, info = answer
        number = as_number(reward)
        if not -LARGEST <= float(number) <= LARGEST:
            raise self.error("step", f"gave the reward {_show(reward)}", f"a number from {-LARGEST:g} to {LARGEST:g}")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if as_number(flag) not in (0, 1):
                raise self.error("step", f"gave {name} {_show(flag)}", "True or False")
        observation = self.checked("step", observation, info)
        return observation, number, bool(as_number(terminated)), bool(as_number(truncated)), info

    def render(self):
        frame = self.call("render")
        is_array = isinstance(frame, np.ndarray) and not isinstance(frame, np.ma.MaskedArray)
        is_image = is_array and frame.dtype == np.uint8 and frame.ndim == 3
        if not (is_image and frame.shape[2] == 3 and min(frame.shape) > 0 and max(frame.shape) <= LARGEST_SIDE):
            expected = f"an array uint8 (height, width, 3) of 1 to {LARGEST_SIDE} pixels a side"
            raise self.error("render", f"gave the frame {_show(frame)}", expected)
        return frame

    def close(self):
        """Close the environment. If that fails, say so in one line: what was to be done is done."""
        try:
            call("the environment's close", self.env.close)
        except (EnvError, EnvFault) as error:
            warn_once(str(error))

    def call(self, name, parts="", *arguments, **keywords):
        """What the environment's method returns. parts: what a tuple must hold, if it is one."""
        answer = call(self.where(name), getattr(self.env, name), *arguments, **keywords)
        if parts and not (isinstance(answer, tuple) and len(answer) == parts.count(",") + 1):
            raise self.error(name, f"gave {_show(answer)}", parts)
        return answer

    def checked(self, name, observation, info):
        """The observation, as NumPy's arrays and numbers if it is used."""
        if not isinstance(info, Mapping):
            raise self.error(name, f"gave the info {_show(info)}", "a mapping")
        if not self.observed:
            return observation
        try:
            arrays = as_arrays(observation, self.env.observation_space)
            good = all(fits(part.of(arrays), part.space) for part in self.pictures)
            for part, is_box, length in self.numbers:
                good = good and _are_numbers(part, is_box, length, arrays)
        except Exception:  # whatever gym raises for what is not in the space
            good = False
        if not good:
            expected = f"one of {_show(self.env.observation_space)}, its numbers from {-LARGEST:g} to {LARGEST:g}"
            raise self.error(name, f"gave the observation {_show(observation)}", expected)
        return arrays

    def where(self, name):
        return f"the environment's {name} (episode {self.episode}, env step {self.env_step})"

    def error(self, name, what, expected):
        """Return the EnvError: what a call gave, and what was expected."""
        return EnvError(f"{self.where(name)} {what}; expected {expected}")


def _are_numbers(part, is_box, length, observation):
    """Whether an observation holds real numbers for a part, as many as it says and none too large.

    is_box: whether the part is a Box; one that is the whole observation must have its shape. length: of its vector.
    """
    value = part.of(observation)
    numbers = np.asarray(value) if is_box else spaces.flatten(part.space, value)
    right = numbers.size == length and (part.path or not is_box or numbers.shape == part.space.shape)
    real = numbers.dtype.kind != "c" and not isinstance(value, np.ma.MaskedArray)
    return right and real and float(np.abs(numbers).max(initial=0)) <= LARGEST


def _show(value):
    """A value in a few words, on one line."""
    if isinstance(value, np.ma.MaskedArray):
        return f"a masked array of {value.dtype} {value.shape}"
    if isinstance(value, np.ndarray) and value.size > 1 and value.dtype.kind in "biuf":
        return f"{value.dtype} {value.shape} of {value.min()} to {value.max()}"
    words = " ".join(_short.repr(value.item() if isinstance(value, np.generic) else value).split())
    return words if len(words) <= 80 else f"{words[:80]} …"


_short = reprlib.Repr()
_short.maxother = 80


class ActionRepeat(gym.Wrapper):
    """Repeats each action `amount` times, sums the rewards and stops at the episode's end.

    `info["env_steps"]` tells how many simulator steps that took, `max_agent_steps` how many
    decisions an episode can hold (None: no limit), `frames_per_second` how many make a second of the environment's own
    time (None: it does not say).
    """

    def __init__(self, env, amount):
        super().__init__(env)
        self.amount = amount
        limit = env.spec.max_episode_steps if env.spec else env.max_episode_steps
        self.max_agent_steps = limit and math.ceil(limit / amount)
        rate = _steps_per_second(env)
        self.frames_per_second = rate and rate / amount

    def step(self, action):
        total, env_steps, ended = 0.0, 0, False
        while env_steps < self.amount and not ended:
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)  # of a type with few digits they might overflow
            env_steps += 1
            ended = terminated or truncated
        return observation, total, terminated, truncated, {**info, "env_steps": env_steps}


def _steps_per_second(env):
    """What the metadata of an environment say; None if that is no rate."""
    try:
        rate = float(env.metadata.get("render_fps") or env.metadata.get("video.frames_per_second"))
    except (AttributeError, TypeError, ValueError):
        return None
    return rate if 0 < rate < math.inf else None


class PixelObservation(gym.ObservationWrapper):
    """Replaces the observation by what the environment renders: uint8 (3, height, width)."""

    def __init__(self, env, height, width):
        super().__init__(env)
        self.size = (width, height)
        self.observation_space = spaces.Box(0, 255, (3, height, width), np.uint8)

    def observation(self, observation):
        frame = self.env.render()
        if frame.shape[1::-1] != self.size:
            frame = np.asarray(Image.fromarray(frame).resize(self.size, Image.Resampling.BILINEAR))
        return np.array(frame.transpose(2, 0, 1), order="C")  # a copy: the environment may draw into its frame again


class Grayscale(gym.ObservationWrapper):
    """Pixels (3, height, width) as their brightness, uint8 (1, height, width): 0.299 red, 0.587 green, 0.114 blue."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Box(0, 255, (1, *env.observation_space.shape[1:]), np.uint8)

    def observation(self, observation):
        red, green, blue = observation.astype(np.uint32)
        return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)[None]


class VectorObservation(gym.ObservationWrapper):
    """Flattens whatever gym can flatten to float32 (size,)."""

    def __init__(self, env):
        super().__init__(env)
        _, self.numbers = split(env.observation_space)
        self.observation_space = spaces.Box(-np.inf, np.inf, (size(self.numbers),), np.float32)

    def observation(self, observation):
        return vector(self.numbers, observation)


class OneHot(spaces.Box):
    """The space of one-hot vectors of a size."""

    def __init__(self, size):
        super().__init__(0.0, 1.0, (size,), np.float32)

    def sample(self, mask=None):
        action = np.zeros(self.shape, np.float32)
        action[self.np_random.integers(self.shape[0])] = 1
        return action


class OneHotAction(gym.ActionWrapper):
    """Takes one-hot vectors where the environment takes the index (gym's Discrete)."""

    def __init__(self, env):
        super().__init__(env)
        self.start = env.action_space.start
        self.action_space = OneHot(env.action_space.n)

    def action(self, action):
        return self.start + int(np.argmax(action))
