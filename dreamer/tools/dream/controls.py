"""Convert an environment's action to and from a list of numbers, one for each slider or choice on the page."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

MAX_CONTROLS = 64  # controls; with more, only the agent acts


class Control(NamedTuple):
    """Describes a number of an action that a person can choose."""

    name: str
    low: float
    high: float
    whole: bool  # whether it is one of low, low + 1, …, high


def controls_of(space: Any, name: str = "") -> list[Control]:
    """Return the controls of an action space, in the order of `values_of`; [] if there are more than MAX_CONTROLS."""
    if spaces.flatdim(space) > MAX_CONTROLS * 64:
        return []
    controls = list(_controls(space, name))
    return controls if len(controls) <= MAX_CONTROLS else []


def _controls(space: Any, name: str) -> Iterator[Control]:
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        for key, part in _parts(space):
            yield from _controls(part, f"{name} {key}".strip())
        return
    bounds: Any
    if isinstance(space, spaces.Box):
        bounds, whole = zip(space.low.flat, space.high.flat, strict=True), space.dtype.kind != "f"
    elif isinstance(space, spaces.Discrete):
        bounds, whole = [(space.start, space.start + space.n - 1)], True
    elif isinstance(space, spaces.MultiDiscrete):
        bounds, whole = zip(space.start.flat, (space.start + space.nvec - 1).flat, strict=True), True
    else:
        bounds, whole = [(0, 1)] * int(np.prod(space.shape)), True
    numbered = bool(space.shape) and int(np.prod(space.shape)) > 1
    for index, (low, high) in enumerate(bounds):
        label = f"{name or 'action'} {index}" if numbered else name or "action"
        yield Control(label, float(low), float(high), whole)


def values_of(space: Any, action: Any) -> list[float]:
    """Return the numbers of an action, one for each control."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        return [number for key, part in _parts(space) for number in values_of(part, action[key])]
    return [float(number) for number in np.asarray(action).flat]


def action_of(space: Any, values: Sequence[float]) -> Any:
    """Return the action for a list of numbers, one for each control, clipped to the control's bounds."""
    remaining_values = iter(values)

    def build(part: Any) -> Any:
        if isinstance(part, (spaces.Dict, spaces.Tuple)):
            parts = {key: build(inner_part) for key, inner_part in _parts(part)}
            return parts if isinstance(part, spaces.Dict) else tuple(parts.values())
        numbers = np.array([_clip(control, next(remaining_values)) for control in _controls(part, "")])
        if isinstance(part, spaces.Discrete):
            return int(numbers[0])
        return numbers.astype(part.dtype).reshape(part.shape)

    return build(space)


def neutral_values(controls: Sequence[Control]) -> list[float]:
    """Return the numbers of a neutral action: the middle of each range, the first of each set of choices."""
    return [control.low if control.whole else (control.low + control.high) / 2 for control in controls]


def _parts(space: Any) -> Iterator[tuple[Any, Any]]:
    return iter(space.spaces.items()) if isinstance(space, spaces.Dict) else enumerate(space.spaces)


def _clip(control: Control, number: float) -> float:
    number = min(max(number, control.low), control.high)
    return round(number) if control.whole else number
