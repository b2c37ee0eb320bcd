"""Translate between an environment's own observations and actions and those of an agent."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamer.envs.actions import AgentAction
from dreamer.envs.make import wrap_observation
from dreamer.envs.numeric import as_array
from dreamer.envs.spaces import Spaces
from dreamer.envs.wrappers import LARGEST, show
from dreamer.errors import InputError

TOLERANCE = 1e-6  # fraction of the span of an action's bounds by which rounding may exceed them


class GivenObservation(gymnasium.Env):
    """Replaces the environment below the wrappers. `reset` and `render` return the observation that was set."""

    def __init__(self, spaces_of_env: Spaces):
        self.observation_space, self.action_space = spaces_of_env
        self.observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.observation, {}

    def render(self) -> Any:
        return self.observation


class Translation:
    """Translates by the wrappers that training uses, so that an agent sees the same numbers, bit for bit."""

    def __init__(self, spaces_of_env: Spaces, environment: Mapping[str, Any]):
        """spaces_of_env: the environment's own. environment: that section of the configuration."""
        self.spaces, self.given = spaces_of_env, GivenObservation(spaces_of_env)
        self.from_pixels = bool(environment["from_pixels"])  # whether observations are rendered frames, of any size
        self.actions = AgentAction(self.given, environment["task_name"])
        self.wrapped = wrap_observation(
            self.actions, self.from_pixels, environment["height"], environment["width"], environment["grayscale"]
        )
        self.observation_space: Any = self.wrapped.observation_space  # the agent's spaces
        self.action_space: Any = self.actions.action_space

    def agent_observation(self, observation: Any) -> tuple[Any, int | None]:
        """Return the agent's form of one observation or of a batch, and the batch's size B; None for a single one.

        Raises InputError.
        """
        sizes: dict[str, int | None] = {}
        checked = partial(self._checked, sizes=sizes)
        arrays = _map_parts(observation, self.spaces.observation, "the observation", checked)
        if len(set(sizes.values())) > 1:
            raise InputError(f"the parts of the observation differ in size: {sizes}; expected one batch, or no batch")
        size = next(iter(sizes.values()))
        if size is None:
            return self._pass_through(arrays), None
        rows = [self._pass_through(_map_arrays(arrays, itemgetter(row))) for row in range(size)]
        return _stack(rows), size

    def env_action(self, action: np.ndarray) -> Any:
        """Return the environment's form of an agent's action, (A,), or of several, (..., A)."""
        if action.ndim == 1:
            return self.actions.action(action)
        rows = [self.actions.action(row) for row in action.reshape(-1, action.shape[-1])]
        return _map_arrays(_stack(rows), lambda part: part.reshape(*action.shape[:-1], *part.shape[1:]))

    def agent_action(self, action: Any, axes: tuple[int, ...] = (0,)) -> np.ndarray:
        """Return the agent's form of the environment's own actions, float32 (..., A).

        axes: the numbers of axes before those of one action that are expected. Raises InputError.
        """
        batch_shapes: dict[str, tuple[int, ...]] = {}

        def checked(value: Any, space: Any, name: str) -> np.ndarray:
            array = _numbers(value, name)
            batch_axes = array.ndim - len(space.shape)
            if batch_axes not in axes or array.shape[batch_axes:] != space.shape:
                expected = " or ".join(str((*"BT"[2 - count :], *space.shape)).replace("'", "") for count in axes)
                raise InputError(f"{name} has the shape {array.shape}; expected {expected}, for {space}")
            batch_shapes[name] = array.shape[:batch_axes]
            return _of_bounds(array, space, name)

        arrays = _map_parts(action, self.spaces.action, "the action", checked)
        if len(set(batch_shapes.values())) > 1:
            raise InputError(f"the parts of the action differ in shape before their own axes: {batch_shapes}")
        return self.actions.encode(arrays)

    def _pass_through(self, observation: Any) -> Any:
        """Return what the wrappers make of a single observation."""
        self.given.observation = observation
        return self.wrapped.reset()[0]

    def _checked(self, value: Any, space: Any, name: str, sizes: dict[str, int | None]) -> Any:
        """Return an array of the space's type; a batch of them has one more axis, the first.

        sizes: is extended by the part's batch size under its name; None for a part without a batch axis.
        """
        array = _numbers(value, name)
        if self.from_pixels and array.ndim >= 3:
            space = spaces.Box(0, 255, (*array.shape[-3:-1], 3), np.uint8)
        shape = tuple(space.shape)
        if array.shape not in (shape, (*array.shape[:1], *shape)):
            expected = f"{shape}, or {(*'B', *shape)} for a batch".replace("'", "")
            raise InputError(f"{name} has the shape {array.shape}; expected {expected}")
        sizes[name] = None if array.shape == shape else len(array)
        if sizes[name] == 0:
            raise InputError(f"{name} is an empty batch; expected one observation or more")
        return _of_type(array, space, name)


def _map_parts(value: Any, space: Any, name: str, function: Callable[[Any, Any, str], np.ndarray]) -> Any:
    """Return function(part, its space, its name) for each part, in dicts and tuples as the space has them.

    Raises InputError for a value that is nested in another way.
    """
    if isinstance(space, spaces.Dict):
        missing = [key for key in space.spaces if not isinstance(value, Mapping) or key not in value]
        if missing:
            found = f"it has {list(value)}" if isinstance(value, Mapping) else f"it is {show(value)}"
            raise InputError(f"{name} lacks {missing}; expected a dict with {list(space.spaces)}, but {found}")
        parts = space.spaces.items()
        return {key: _map_parts(value[key], part, f"{name}[{key!r}]", function) for key, part in parts}
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, (tuple, list)) or len(value) != len(space.spaces):
            raise InputError(f"{name} is {show(value)}; expected a tuple of {len(space.spaces)} parts")
        return tuple(
            _map_parts(part, part_space, f"{name}[{index}]", function)
            for index, (part, part_space) in enumerate(zip(value, space.spaces, strict=True))
        )
    return function(value, space, name)


def _stack(nested: Sequence[Any]) -> Any:
    """Stack the arrays of equally nested dicts and tuples along a new first axis."""
    if isinstance(nested[0], dict):
        return {key: _stack([row[key] for row in nested]) for key in nested[0]}
    if isinstance(nested[0], tuple):
        return tuple(map(_stack, zip(*nested, strict=True)))
    return np.stack(nested)


def _map_arrays(nested: Any, function: Callable[[np.ndarray], Any]) -> Any:
    """Return nested dicts and tuples with a function applied to each array."""
    if isinstance(nested, dict):
        return {key: _map_arrays(part, function) for key, part in nested.items()}
    if isinstance(nested, tuple):
        return tuple(_map_arrays(part, function) for part in nested)
    return function(nested)


def _numbers(value: Any, name: str) -> np.ndarray:
    """Return finite real numbers as an array. Raises InputError for anything else."""
    try:
        array = np.asarray(as_array(value))
    except Exception:  # libraries raise different errors for what is not an array
        array = np.array(None)
    if array.dtype.kind not in "biuf" or isinstance(value, np.ma.MaskedArray):
        raise InputError(f"{name} is {show(value)}; expected an array of real numbers")
    if not (np.abs(array) <= LARGEST).all():
        raise InputError(f"{name} holds NaN, infinity or a number beyond {LARGEST:g}; expected finite numbers")
    return array


def _of_type(array: np.ndarray, space: Any, name: str) -> np.ndarray:
    """Return numbers in the type of their space, each in its range where it counts something."""
    if space.dtype.kind not in "iub":
        return array.astype(space.dtype)
    array = _whole(array, space, name)
    if isinstance(space, spaces.Box):
        return array
    lowest: Any
    count: Any
    if isinstance(space, spaces.MultiBinary):
        lowest, count = 0, 2
    elif isinstance(space, spaces.Discrete):
        lowest, count = space.start, space.n
    else:
        lowest, count = space.start, space.nvec
    if (array < lowest).any() or (array >= lowest + count).any():
        raise InputError(f"{name} is {show(array)}; expected one of {space}")
    return array


def _of_bounds(array: np.ndarray, space: Any, name: str) -> np.ndarray:
    """Return actions unchanged if their space is a Box, else in its type. Raises InputError for what is not in it."""
    if not isinstance(space, spaces.Box):
        return _of_type(array, space, name)
    tolerance = TOLERANCE * (space.high - space.low)
    if (array < space.low - tolerance).any() or (array > space.high + tolerance).any():
        raise InputError(f"{name} {show(array)} is out of bounds; expected one of {space}")
    return array


def _whole(array: np.ndarray, space: Any, name: str) -> np.ndarray:
    """Return numbers in the type of their space, if it can hold them. Raises InputError."""
    with np.errstate(invalid="ignore"):
        converted = array.astype(space.dtype)
    if not (converted == array).all():
        raise InputError(f"{name} is {show(array)}; expected whole numbers that {space.dtype} can hold")
    return converted
