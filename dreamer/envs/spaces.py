"""An environment's own spaces as plain values, for checkpoints and for files that JSON can hold."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

MAX_NUMBERS = 2**26  # numbers in a Box: a limit for files from elsewhere
Plain = dict[str, Any]  # of text, numbers, lists and dicts


class Spaces(NamedTuple):
    """An environment's spaces in its own units, before any wrapper of this program.

    Where an agent sees what the environment renders, `observation` is the space of these frames, uint8 (height, width,
    3).
    """

    observation: spaces.Space
    action: spaces.Space

    def state_dict(self) -> Plain:
        """Return both as plain values, for a checkpoint; {} for spaces that cannot be described."""
        try:
            return {"observation": space_to_json(self.observation), "action": space_to_json(self.action)}
        except TypeError:
            return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep these spaces: they come from the environment, not from the checkpoint."""


def spaces_from_json(plain: Mapping[str, Any]) -> Spaces:
    """Return the spaces that `Spaces.state_dict` describes. Raises ValueError for anything else."""
    try:
        return Spaces(space_from_json(plain["observation"]), space_from_json(plain["action"]))
    except (KeyError, TypeError, AssertionError, OverflowError) as error:
        raise ValueError(f"these are not an environment's spaces ({type(error).__name__}: {error})") from None


def space_to_json(space: Any) -> Plain:
    """Return a space as plain values, which `space_from_json` reads. Raises TypeError for other kinds and keys."""
    if isinstance(space, spaces.Dict):
        wrong_keys = [key for key in space.spaces if type(key) not in (str, int)]
        if wrong_keys:
            raise TypeError(f"a Dict with the key {wrong_keys[0]!r} cannot be described; expected text or integers")
        return {"kind": "Dict", "parts": [[key, space_to_json(part)] for key, part in space.spaces.items()]}
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "parts": [space_to_json(part) for part in space.spaces]}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "kind": "MultiDiscrete",
            "dtype": str(space.dtype),
            "n": space.nvec.tolist(),
            "start": space.start.tolist(),
        }
    if isinstance(space, spaces.Box):
        return {
            "kind": "Box",
            "dtype": str(space.dtype),
            "shape": list(space.shape),
            "low": _numbers(space.low),
            "high": _numbers(space.high),
        }
    raise TypeError(f"a {type(space).__name__} cannot be described: {space}")


def space_from_json(plain: Mapping[str, Any]) -> Any:
    """Return the space that `space_to_json` describes; the parts of a Dict keep their order. Raises ValueError."""
    kind = plain["kind"]
    if kind == "Dict":
        return spaces.Dict([(key, space_from_json(part)) for key, part in plain["parts"]], sort_keys=False)
    if kind == "Tuple":
        return spaces.Tuple([space_from_json(part) for part in plain["parts"]])
    if kind == "Discrete":
        return spaces.Discrete(plain["n"], start=plain["start"])
    if kind == "MultiBinary":
        return spaces.MultiBinary(plain["n"])
    if kind == "MultiDiscrete":
        dtype: Any = np.dtype(plain["dtype"])
        return spaces.MultiDiscrete(np.array(plain["n"], dtype), dtype, start=np.array(plain["start"], dtype))
    if kind == "Box":
        dtype, shape = np.dtype(plain["dtype"]), tuple(plain["shape"])
        return spaces.Box(_array(plain["low"], shape, dtype), _array(plain["high"], shape, dtype), shape, dtype)
    raise ValueError(f"unknown kind of space {kind!r}")


def _numbers(bound: np.ndarray) -> Any:
    """Return a bound as nested lists, or as one number if all are equal. Infinities are text: JSON has none."""
    if bound.size and (bound == bound.flat[0]).all():
        bound = bound.flat[0]
    if np.isfinite(bound).all():
        return bound.tolist()
    return np.vectorize(lambda number: str(number) if np.isinf(number) else number, otypes=[object])(bound).tolist()


def _array(numbers: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return a bound from the result of `_numbers`. Raises ValueError if the shape has too many numbers."""
    if math.prod(shape) > MAX_NUMBERS:
        raise ValueError(f"a space of the shape {shape} has more than {MAX_NUMBERS:,} numbers")
    return np.broadcast_to(np.array(numbers, dtype), shape).copy()
