"""Translate between an agent's actions and an environment's. An agent's action is one vector: one-hot vectors and
numbers in [-1, 1], concatenated."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamer.envs.base import ActionWrapper
from dreamer.envs.observation import check_box, short
from dreamer.envs.wrappers import show
from dreamer.errors import EnvError

MOST_ACTIONS = 2**16  # beyond that the actor's last layer alone takes gigabytes
KINDS = "Discrete, MultiDiscrete, MultiBinary, a bounded Box of reals, or a Dict or Tuple of them"


class ActionParts(spaces.Box):
    """The space of an agent's actions: one-hot vectors and numbers in [-1, 1], concatenated; float32 (A,)."""

    def __init__(self, classes: Sequence[int]) -> None:
        """classes: one for each part: the size of its one-hot vector, or 0 for a number."""
        self.classes = tuple(classes)
        low = np.concatenate([np.zeros(count) if count else [-1.0] for count in classes])
        super().__init__(low.astype(np.float32), np.ones(len(low), np.float32), dtype=np.float32)

    def sample(self, mask: None = None, probability: None = None) -> np.ndarray:
        """Return a uniformly random action."""
        action = np.zeros(self.shape, np.float32)
        start = 0  # of the part
        for count in self.classes:
            if count:
                action[start + self.np_random.integers(count)] = 1
            else:
                action[start] = self.np_random.uniform(-1, 1)
            start += count or 1
        return action

    def are_one_hot(self, actions: np.ndarray) -> bool:
        """Return whether actions (..., A) have one-hot vectors in each part that has classes."""
        ends = np.cumsum([count or 1 for count in self.classes])[:-1]
        parts = zip(np.split(actions, ends, -1), self.classes, strict=True)
        return all(((part.max(-1) == 1) & (part.sum(-1) == 1)).all() for part, count in parts if count)


def classes_of(space: Any) -> tuple[int, ...]:
    """Return the parts of an agent's action space: for each the size of its one-hot vector, or 0 for a number."""
    return space.classes if isinstance(space, ActionParts) else (0,) * space.shape[0]


class ActionCodec(Protocol):
    """Translates the actions of one kind of space to an agent's, and back."""

    classes: tuple[int, ...]  # as in `ActionParts`

    def decode(self, action: np.ndarray) -> Any:
        """Return the environment's action for an agent's, (A,)."""

    def encode(self, action: Any) -> np.ndarray:
        """Return the agent's actions, float32 (..., A), for the environment's, (..., ·) in each part."""


class OneHotCodec:
    """One-hot vectors for an environment that takes an index or several (Discrete, MultiDiscrete, MultiBinary)."""

    def __init__(self, space: Any) -> None:
        self.is_single = isinstance(space, spaces.Discrete)
        self.shape, self.dtype = space.shape, space.dtype
        self.classes = counts(space)
        self.start = np.ravel(getattr(space, "start", 0))
        self.ends = np.cumsum(self.classes)

    def decode(self, action: np.ndarray) -> Any:
        indices = np.array([np.argmax(part) for part in np.split(action, self.ends[:-1])])
        if self.is_single:
            return int(self.start[0] + indices[0])
        return (self.start + indices).reshape(self.shape).astype(self.dtype)

    def encode(self, action: Any) -> np.ndarray:
        batch_shape = action.shape[: action.ndim - len(self.shape)]
        indices = action.reshape(*batch_shape, len(self.classes)) - self.start
        vectors = np.zeros((*indices.shape[:-1], self.ends[-1]), np.float32)
        np.put_along_axis(vectors, indices + (self.ends - self.classes), 1, -1)
        return vectors


class ScaledCodec:
    """Numbers in [-1, 1] for an environment that takes them between other bounds (Box)."""

    def __init__(self, space: spaces.Box) -> None:
        self.lowest, self.highest = space.low, space.high
        self.ones = np.ones(space.shape, space.dtype)
        self.classes = (0,) * self.ones.size

    def decode(self, action: np.ndarray) -> np.ndarray:
        if not np.all(np.abs(action) <= 1):
            raise ValueError(f"the action {show(action)} is not in [-1, 1]")
        fraction = (action.reshape(self.ones.shape) + self.ones) / (self.ones + self.ones)
        scaled = self.lowest + (self.highest - self.lowest) * fraction
        return np.asarray(np.clip(scaled, self.lowest, self.highest))

    def encode(self, action: Any) -> np.ndarray:
        """Return numbers in [-1, 1]; 0 where the lower bound equals the upper one."""
        span = (self.highest - self.lowest).astype(np.float64)
        fraction = np.divide(action - self.lowest, span, out=np.full(np.shape(action), 0.5), where=span > 0)
        batch_shape = action.shape[: action.ndim - self.ones.ndim]
        return np.clip(2 * fraction - 1, -1, 1).astype(np.float32).reshape(*batch_shape, self.ones.size)


class NestedCodec:
    """The parts of a Dict or Tuple, concatenated in its order."""

    def __init__(self, codecs: Mapping[Hashable, ActionCodec], kind: type) -> None:
        """codecs: by the key or index of their part. kind: `dict` or `tuple`, of the environment's actions."""
        self.codecs, self.kind = codecs, kind
        self.classes = sum((codec.classes for codec in codecs.values()), ())
        self.ends = np.cumsum([size(codec.classes) for codec in codecs.values()])[:-1]

    def decode(self, action: np.ndarray) -> Any:
        agent_parts = np.split(action, self.ends)
        parts = [codec.decode(part) for codec, part in zip(self.codecs.values(), agent_parts, strict=True)]
        return dict(zip(self.codecs, parts, strict=True)) if self.kind is dict else tuple(parts)

    def encode(self, action: Any) -> np.ndarray:
        return np.concatenate([codec.encode(action[key]) for key, codec in self.codecs.items()], -1)


def counts(space: Any) -> tuple[int, ...]:
    """Return the number of values of each part of a Discrete, MultiDiscrete or MultiBinary."""
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiBinary):
        return (2,) * math.prod(space.shape)
    return tuple(space.nvec.ravel().tolist())


def size(classes: Sequence[int]) -> int:
    """Return the length A of an agent's action that has these parts."""
    return sum(count or 1 for count in classes)


class AgentAction(ActionWrapper):
    """Takes an agent's actions, float32 (A,), where the environment takes its own."""

    def __init__(self, env: gymnasium.Env, task_name: str) -> None:
        """task_name: begins an error. Raises EnvError for actions that an agent cannot take."""
        super().__init__(env)
        space: Any = env.action_space
        self.codec = codec_of(space, f"{task_name}: actions")
        length = size(self.codec.classes)
        if not 0 < length <= MOST_ACTIONS:
            raise unsupported_actions(space, f"{task_name}: actions")
        is_vector = isinstance(space, spaces.Box) and len(space.shape) == 1
        parts = ActionParts(self.codec.classes)
        self.action_space = spaces.Box(-1.0, 1.0, space.shape, space.dtype) if is_vector else parts

    def action(self, action: np.ndarray) -> Any:
        return self.codec.decode(action)

    def encode(self, action: Any) -> np.ndarray:
        """Return the agent's actions, float32 (..., A), for the environment's."""
        return self.codec.encode(action)


def codec_of(space: Any, where: str) -> ActionCodec:
    """Return the codec of an action space. where: begins an error. Raises EnvError for a space of another kind."""
    if isinstance(space, spaces.Dict) and space.spaces:
        return NestedCodec({key: codec_of(part, f"{where}, {key!r}") for key, part in space.spaces.items()}, dict)
    if isinstance(space, spaces.Tuple) and space.spaces:
        return NestedCodec({key: codec_of(part, f"{where}, {key!r}") for key, part in enumerate(space.spaces)}, tuple)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        if math.prod(space.shape or ()) <= MOST_ACTIONS and sum(counts(space)) <= MOST_ACTIONS:
            return OneHotCodec(space)
    elif isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) and space.is_bounded():
        _check_span(space, where)
        return ScaledCodec(space)
    raise unsupported_actions(space, where)


def columns_of(space: Any, keys: tuple[Hashable, ...] = ()) -> list[tuple[Hashable, ...]]:
    """Return a name for each number of an agent's action: the keys that lead to its part, and its index there.

    keys: those that lead to this space.
    """
    if isinstance(space, spaces.Dict):
        return [name for key, part in space.spaces.items() for name in columns_of(part, (*keys, key))]
    if isinstance(space, spaces.Tuple):
        return [name for key, part in enumerate(space.spaces) for name in columns_of(part, (*keys, key))]
    return [(*keys, index) for index in range(size(codec_of(space, "actions").classes))]


def unsupported_actions(space: Any, where: str) -> EnvError:
    """Return the error about a space whose actions an agent cannot take."""
    return EnvError(f"{where} must be {KINDS}, of 1 to {MOST_ACTIONS:,} numbers in all, not {short(space)}")


def _check_span(space: spaces.Box, where: str) -> None:
    """Raise EnvError for bounds between which [-1, 1] cannot be scaled."""
    check_box(space, where)
    with np.errstate(over="ignore"):
        wrong = np.argwhere(~np.isfinite(space.high - space.low))
    if len(wrong):
        index = tuple(wrong[0].tolist())
        bounds = f"{space.low[index]} to {space.high[index]}"
        component = index[0] if len(index) == 1 else index
        raise EnvError(
            f"{where}, component {component}: {bounds} is more than a {space.dtype} can span; narrow the bounds"
        )
