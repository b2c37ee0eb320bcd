"""The parts of an observation: which are pictures, which are numbers, and which cannot be used."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from dreamer.envs.numeric import NUMBERS
from dreamer.errors import EnvError

SMALLEST, LARGE = 8, 16  # pixels a side: of the smallest picture, and of an array large enough to be taken for one
FEW = 4  # channels; an axis of so few is that of the channels
AXES = {2: ("HW",), 3: ("HWC", "CHW")}  # of pictures, by their number: height, width, channels
MOST_NUMBERS = 2**18  # in a vector: beyond that its first layer alone takes gigabytes
MOST_BYTES = 2**22  # of all pictures of a step: beyond that 4,096 steps, a file of the replay, take 17 GB
TOLD = 50  # parts that a line names


class Part(NamedTuple):
    """A part of an observation that has no parts itself."""

    path: tuple[Any, ...]  # the keys and indices that lead to it; () if it is the whole observation
    space: Any

    @property
    def name(self) -> str:
        """Return the keys and indices that lead to it as text."""
        name = "/".join(map(str, self.path)) or "observation"
        return name if name.isprintable() else repr(name)

    @property
    def where(self) -> str:
        """Return the beginning of an error about its space."""
        return "the observation space" + (f", {self.name}" if self.path else "")

    def of(self, observation: Any) -> Any:
        """Return this part of an observation."""
        for key in self.path:
            observation = observation[key]
        return observation

    def describe(self) -> str:
        """Return its name, type and shape as text."""
        axes = layout(self.space)
        note = ""
        if axes == "CHW":
            note = " channels first"
        elif axes == "HW":
            note = " grey"
        elif isinstance(self.space, (spaces.Discrete, spaces.MultiDiscrete)):
            note = " one-hot"
        shape = (int(self.space.n),) if isinstance(self.space, spaces.Discrete) else self.space.shape
        return f"{self.name} {self.space.dtype} {shape}{note}"


def split(space: Any) -> tuple[list[Part], list[Part]]:
    """Return the pictures and the other parts of an observation space, each a list of `Part`.

    Raises EnvError for a part that cannot be used, and for too many numbers.
    """
    parts = list(_parts(space))
    if any(layout(part.space) for part in parts):
        parts.sort(key=lambda part: str(part.path[0]) if part.path else "")
    for part in parts:
        _check(part)
    pictures = [part for part in parts if layout(part.space)]
    numbers = [part for part in parts if not layout(part.space)]
    _check_together(numbers)
    return pictures, numbers


def layout(space: Any) -> str | None:
    """Return the axes of a picture, "HWC", "CHW" or "HW"; None for a space of anything else.

    A picture is a Box of uint8. Either it has SMALLEST pixels a side or more, and up to FEW channels, first, last or
    without an axis; or LARGE pixels a side or more, and any number of channels on the last axis, which is the shortest.
    Below LARGE its upper bound must be 255: else it is a map of symbols.
    """
    if not (isinstance(space, spaces.Box) and space.dtype == np.uint8):
        return None
    for axes in AXES.get(len(space.shape), ()):
        height, width, channels = (space.shape[axes.index(axis)] if axis in axes else 1 for axis in "HWC")
        side = min(height, width)
        if channels <= FEW:
            is_picture = side >= LARGE or (side >= SMALLEST and space.high.max() == 255)
        else:
            is_picture = axes == "HWC" and side >= max(LARGE, channels)
        if is_picture:
            return axes
    return None


def vector(numbers: Sequence[Part], observation: Any) -> np.ndarray:
    """Return these parts of an observation one after the other, flattened as gymnasium does it: float32 (size,)."""
    return np.concatenate([spaces.flatten(part.space, part.of(observation)) for part in numbers]).astype(np.float32)


def size(numbers: Sequence[Part]) -> int:
    """Return the length of their `vector`."""
    return sum(_length(part.space) for part in numbers)


def _length(space: Any) -> int:
    if isinstance(space, spaces.MultiDiscrete):
        return sum(space.nvec.ravel().tolist())  # Python's integers: gymnasium's sum overflows
    return spaces.flatdim(space)


# Before a run


def describe_pictures(texts: Sequence[str], shape: tuple[int, ...]) -> str:
    """Return the line that names the pictures of an observation. shape: of all together, as the agent sees them."""
    return f"pictures    {_joined(texts)}: seen as uint8 {shape}, by the convolutions"


def describe_left_out(texts: Sequence[str]) -> str:
    """Return the line that names the parts that are not used."""
    return f"left out    {_joined(texts)}: nothing here reads text"


def describe_numbers(texts: Sequence[str], length: int) -> str:
    """Return the line that names the other parts. length: of the vector of all."""
    return f"numbers     {_joined(texts)}: seen as float32 ({length},), by the MLP"


def hints(numbers: Iterable[Part]) -> list[str]:
    """Return a line about each part that looks like a picture but is taken as numbers: what to do if it is one."""
    advice = "for the convolutions give it as uint8 from 0 to 255, height x width x channels"
    suspects = [part for part in numbers if _looks_like_a_picture(part.space)]
    return [f"a picture?  {part.describe()} is seen as {size([part]):,} numbers; {advice}" for part in suspects]


def _joined(texts: Sequence[str]) -> str:
    text = ", ".join(texts[:TOLD])
    if len(texts) > TOLD:
        text += f" and {len(texts) - TOLD} more"
    return text


def _looks_like_a_picture(space: Any) -> bool:
    shape = space.shape if isinstance(space, spaces.Box) else ()
    return any(min(pair) >= LARGE for pair in zip(shape, shape[1:], strict=False))


def _parts(space: Any, path: tuple[Any, ...] = ()) -> Iterator[Part]:
    if isinstance(space, spaces.Dict) and space.spaces:
        for key, inner in space.spaces.items():
            yield from _parts(inner, (*path, key))
    elif isinstance(space, spaces.Tuple) and space.spaces:
        for index, inner in enumerate(space.spaces):
            yield from _parts(inner, (*path, index))
    else:
        yield Part(path, space)


def _check(part: Part) -> None:
    space = part.space
    if isinstance(space, spaces.Box):
        check_box(space, part.where)
    elif not isinstance(space, (*NUMBERS, spaces.Dict, spaces.Tuple)):
        raise unsupported_space(part)
    if isinstance(space, (spaces.Dict, spaces.Tuple)) or _length(space) == 0:
        raise EnvError(f"{part.where}: {short(space)} holds nothing; leave it out")


def unsupported_space(part: Part) -> EnvError:
    """Return the error about a space of a kind that cannot be observed."""
    kinds = "Box, Discrete, MultiBinary or MultiDiscrete, or a Dict or Tuple of them"
    return EnvError(f"{part.where} is {short(part.space)}; expected a space of numbers: {kinds}")


def check_box(space: Any, where: str) -> None:
    """Raise EnvError for a Box, of gymnasium or gym, whose numbers are not real or whose bounds have no order.

    where: begins the error.
    """
    if space.dtype.kind not in "biuf":
        raise EnvError(f"{where}: {short(space)} holds {space.dtype}; expected real numbers")
    wrong = np.argwhere(~(space.low <= space.high))
    if len(wrong):
        index = tuple(wrong[0].tolist())
        bounds = f"from {space.low[index]} to {space.high[index]}"
        raise EnvError(f"{where}: {short(space)} goes {bounds} at {index}; expected low <= high")


def _check_together(numbers: Sequence[Part]) -> None:
    total = size(numbers)
    if total > MOST_NUMBERS:
        largest = max(numbers, key=lambda part: size([part]))
        advice = "what is one-hot may be a number in a Box, pictures may be uint8 (height, width, channels)"
        raise EnvError(
            f"the observation space makes a vector of {total:,} numbers, {size([largest]):,} of them from "
            f"{largest.name}, {short(largest.space)}; at most {MOST_NUMBERS:,} can be learned from: {advice}"
        )


def short(space: Any) -> str:
    """Return a space as text of one line, shortened if it is long."""
    text = " ".join(str(space).split())
    return text if len(text) <= 80 else f"{text[:80]} …"
