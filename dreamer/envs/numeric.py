"""Convert numbers of any library to NumPy's."""

import math
from typing import Any

import numpy as np
from gymnasium import spaces

NUMBERS = spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete


def as_array(value: Any) -> Any:
    """Return an array or number of any library that NumPy can read, as NumPy's.

    A tensor of torch may require a gradient, and be on any device. Raises whatever the library raises.
    """
    if isinstance(value, (np.ndarray, np.generic)):
        return value
    for method in ("detach", "cpu"):
        if hasattr(value, method):
            value = getattr(value, method)()
    if type(value).__module__.startswith("cupy"):
        value = value.get()
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":  # unknown to NumPy
        value = value.float()
    return np.asarray(value)


def as_number(value: Any) -> Any:
    """Return a real number, or the only number of an array; NaN for anything else."""
    if isinstance(value, (bool, float)):
        return value
    if isinstance(value, np.ma.MaskedArray):
        return math.nan
    try:
        array = as_array(value)
        if array.size == 1 and array.dtype.kind in "biuf":
            return array.reshape(())[()]
        if array.size == 1 and array.dtype.kind in "OV":  # a fraction, or a number type that NumPy lacks
            return float(array.reshape(())[()])
    except Exception:  # libraries raise different errors for what is not one number
        return math.nan
    return math.nan


def as_arrays(observation: Any, space: spaces.Space) -> Any:
    """Return an observation with NumPy's arrays and numbers as its parts, in dicts and tuples as its space has them.

    Raises an exception for some observations that are not in the space, but not for all.
    """
    if isinstance(space, spaces.Dict):
        return {key: as_arrays(observation[key], part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(as_arrays(value, part) for value, part in zip(observation, space.spaces, strict=True))
    if isinstance(space, NUMBERS):
        return as_array(observation)
    return observation
