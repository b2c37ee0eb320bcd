"""Episodes as .npz files, one each, in the format of Dreamer's and DreamerV2's authors and many others.

T is the number of observations, one more than the number of actions:

  image        uint8 (T, height, width, channels), or channels first; or vector, or both
  vector       numbers (T, size)
  action       numbers (T, A) in [-1, 1], or one-hot; at index t the action that led to observation t, at 0 zeros
  reward       numbers (T,); at index t the reward received with observation t, at 0 zero
  is_terminal  (T,), true at the last index if the task ended there; or
  discount     (T,), 0 at the last index if the task ended there

Without is_terminal and discount, no task ends. is_first and is_last are allowed; other keys are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from dreamer.envs.spaces import Spaces
from dreamer.envs.translation import TOLERANCE
from dreamer.errors import DataError, in_words
from dreamer.replay.recorded import DatasetInfo
from dreamer.tools.recordings import Episode, Recordings, row_type_of, rows_of, translation_of

OURS = ("image", "vector", "action", "reward", "is_terminal", "discount", "is_first", "is_last")
OF_CHUNKS = {"stepid", "reset"}  # keys of dreamerv3's files, in which action t follows observation t


def read_npz(folder: Path, size: int, numbers: Sequence[str] = ()) -> Recordings:
    """Return the episodes in the .npz files of a folder, in the order of their names.

    size: of pictures, in pixels a side. numbers: keys to join to a vector in place of "vector". Raises DataError.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise DataError(f"{folder} holds no .npz file, no run and no dataset")
    first = load(paths[0])
    observation, action = observation_of(first, numbers, paths[0]), part(first, "action", paths[0], axes=2)
    boxes: dict[str, spaces.Space] = {name: _box(values) for name, values in observation.items()}
    space: Any = spaces.Dict(boxes) if len(boxes) > 1 else next(iter(boxes.values()))
    own = Spaces(space, spaces.Box(-1, 1, action.shape[1:], np.float32))
    translation = translation_of(own, size, str(paths[0]))
    left_out = tuple(sorted(set(first) - {*OURS, *numbers}))

    def episodes() -> Iterator[np.ndarray]:
        for path in paths:
            episode = read_episode(path, numbers, own)
            yield rows_of(episode, translation, str(path))

    return Recordings(DatasetInfo(str(folder)), row_type_of(translation), episodes(), translation, left_out)


def load(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays in a file. No code in it is executed. Raises DataError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
    except Exception as error:  # reading a damaged file may raise anything
        raise DataError(f"{path} cannot be read ({in_words(error)})") from None
    if OF_CHUNKS & set(found):
        reason = "it is a chunk of dreamerv3's replay, which has another time index; export episodes instead"
        raise DataError(f"{path}: {reason}")
    return found


def read_episode(path: Path, numbers: Sequence[str], own: Spaces) -> Episode:
    """Return the episode in a file. Raises DataError."""
    found = load(path)
    observation = observation_of(found, numbers, path)
    reward = part(found, "reward", path, axes=1)
    action = part(found, "action", path, axes=2)
    if action.shape[1:] != own.action.shape:
        raise DataError(f"{path}: actions {action.shape[1:]}, in the first file {own.action.shape}; expected the same")
    if (np.abs(action) > 1 + TOLERANCE).any():
        largest = np.abs(action).max()
        raise DataError(f"{path}: action reaches {largest:g}; expected [-1, 1], or one-hot vectors")
    ends = np.zeros(len(reward), bool)
    if "is_terminal" in found:
        ends = part(found, "is_terminal", path, axes=1) != 0
    elif "discount" in found:
        ends = part(found, "discount", path, axes=1) == 0
    firsts = part(found, "is_first", path, axes=1)[1:] if "is_first" in found else ends[:0]
    if ends[:-1].any() or firsts.any():
        raise DataError(f"{path}: an episode ends before the last index; expected one episode in a file")
    inside = next(iter(observation.values())) if len(observation) == 1 else observation
    return Episode(inside, action.clip(-1, 1), reward, bool(ends[-1:].any()))


def observation_of(found: Mapping[str, np.ndarray], numbers: Sequence[str], path: Path) -> dict[str, np.ndarray]:
    """Return the observations of an episode, {"image": …, "vector": …} or only one of them. Raises DataError."""
    observation = {"image": part(found, "image", path)} if "image" in found else {}
    keys = numbers or [key for key in ("vector",) if key in found]
    columns = [part(found, key, path) for key in keys]
    if columns:
        if len({len(column) for column in columns}) > 1:
            raise DataError(f"{path}: {', '.join(keys)} differ in length; expected one")
        flat = [column.reshape(len(column), -1).astype(np.float32) for column in columns]
        observation["vector"] = np.concatenate(flat, axis=1)
    if not observation:
        advice = "name those to join to a vector: --numbers KEY …"
        raise DataError(f"{path} has neither image nor vector, but {', '.join(sorted(found))}; {advice}")
    return observation


def part(found: Mapping[str, np.ndarray], key: str, path: Path, axes: int = 0) -> np.ndarray:
    """Return the real numbers (T, …) of a key. axes: expected number of axes; 0: any. Raises DataError."""
    if key not in found:
        raise DataError(f"{path} has no {key}, but {', '.join(sorted(found))}")
    values = found[key]
    if values.dtype.kind not in "biuf" or values.ndim == 0 or (axes and values.ndim != axes):
        expected = {0: "numbers (T, …)", 1: "numbers (T,)", 2: "numbers (T, A), of discrete actions one-hot"}[axes]
        raise DataError(f"{path}: {key} is {values.dtype} {values.shape}; expected {expected}")
    return values.astype(np.float32) if axes else values


def write_npz(recordings: Recordings, folder: Path) -> int:
    """Write one file for each episode into a folder, and return their number. Raises OSError."""
    count = 0
    for count, rows in enumerate(recordings.episodes, 1):
        is_terminal = rows["is_terminal"] != 0
        flags = {"is_first": rows["is_first"] != 0, "is_terminal": is_terminal}
        discount = 1 - rows["is_terminal"]
        parts = {**parts_of(rows["observation"]), "action": rows["action"], "reward": rows["reward"], **flags}
        np.savez_compressed(folder / f"episode-{count:06}-{len(rows)}.npz", **parts, discount=discount)
    return count


def parts_of(observation: np.ndarray) -> dict[str, np.ndarray]:
    """Return the observations of rows (T,): "image" (T, height, width, channels), "vector" (T, size), or both."""
    if observation.dtype.names:
        each = {name: observation[name] for name in observation.dtype.names}
    else:
        each = {"image" if observation.dtype == np.uint8 else "vector": observation}
    return {name: values.transpose(0, 2, 3, 1) if name == "image" else values for name, values in each.items()}


def _box(values: np.ndarray) -> spaces.Box:
    """Return the space of observations (T, …)."""
    low, high = (0, 255) if values.dtype == np.uint8 else (-np.inf, np.inf)
    return spaces.Box(low, high, values.shape[1:], values.dtype)
