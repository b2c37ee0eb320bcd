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

KNOWN_KEYS = ("image", "vector", "action", "reward", "is_terminal", "discount", "is_first", "is_last")
CHUNK_KEYS = {"stepid", "reset"}  # keys of dreamerv3's files, in which action t follows observation t


def read_npz(folder: Path, size: int, vector_keys: Sequence[str] = ()) -> Recordings:
    """Return the episodes in the .npz files of a folder, in the order of their names.

    size: of pictures, in pixels a side. vector_keys: keys to join to a vector in place of "vector". Raises DataError.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise DataError(f"{folder} holds no .npz file, no run and no dataset")
    first_arrays = load_arrays(paths[0])
    observation = observation_of(first_arrays, vector_keys, paths[0])
    action = read_array(first_arrays, "action", paths[0], axes=2)
    part_spaces: dict[str, spaces.Space] = {name: box_of(values) for name, values in observation.items()}
    observation_space: Any = spaces.Dict(part_spaces) if len(part_spaces) > 1 else next(iter(part_spaces.values()))
    env_spaces = Spaces(observation_space, spaces.Box(-1, 1, action.shape[1:], np.float32))
    translation = translation_of(env_spaces, size, str(paths[0]))
    left_out = tuple(sorted(set(first_arrays) - {*KNOWN_KEYS, *vector_keys}))

    def episodes() -> Iterator[np.ndarray]:
        for path in paths:
            episode = read_episode(path, vector_keys, env_spaces)
            yield rows_of(episode, translation, str(path))

    return Recordings(DatasetInfo(str(folder)), row_type_of(translation), episodes(), translation, left_out)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays in a file. No code in it is executed. Raises DataError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except Exception as error:  # reading a damaged file may raise anything
        raise DataError(f"{path} cannot be read ({in_words(error)})") from None
    if CHUNK_KEYS & set(arrays):
        reason = "it is a chunk of dreamerv3's replay, which has another time index; export episodes instead"
        raise DataError(f"{path}: {reason}")
    return arrays


def read_episode(path: Path, vector_keys: Sequence[str], env_spaces: Spaces) -> Episode:
    """Return the episode in a file. Raises DataError."""
    arrays = load_arrays(path)
    observation = observation_of(arrays, vector_keys, path)
    reward = read_array(arrays, "reward", path, axes=1)
    action = read_array(arrays, "action", path, axes=2)
    if action.shape[1:] != env_spaces.action.shape:
        shapes = f"actions {action.shape[1:]}, in the first file {env_spaces.action.shape}"
        raise DataError(f"{path}: {shapes}; expected the same")
    if (np.abs(action) > 1 + TOLERANCE).any():
        largest = np.abs(action).max()
        raise DataError(f"{path}: action reaches {largest:g}; expected [-1, 1], or one-hot vectors")
    is_terminal = np.zeros(len(reward), bool)
    if "is_terminal" in arrays:
        is_terminal = read_array(arrays, "is_terminal", path, axes=1) != 0
    elif "discount" in arrays:
        is_terminal = read_array(arrays, "discount", path, axes=1) == 0
    is_first = np.zeros(len(reward), bool)
    if "is_first" in arrays:
        is_first = read_array(arrays, "is_first", path, axes=1) != 0
    if is_terminal[:-1].any() or is_first[1:].any():
        raise DataError(f"{path}: an episode ends before the last index; expected one episode in a file")
    env_observation = next(iter(observation.values())) if len(observation) == 1 else observation
    return Episode(env_observation, action.clip(-1, 1), reward, bool(is_terminal[-1:].any()))


def observation_of(arrays: Mapping[str, np.ndarray], vector_keys: Sequence[str], path: Path) -> dict[str, np.ndarray]:
    """Return the observations of an episode, {"image": …, "vector": …} or only one of them. Raises DataError."""
    observation = {"image": read_array(arrays, "image", path)} if "image" in arrays else {}
    keys = vector_keys
    if not keys and "vector" in arrays:
        keys = ["vector"]
    columns = [read_array(arrays, key, path) for key in keys]
    if columns:
        if len({len(column) for column in columns}) > 1:
            raise DataError(f"{path}: {', '.join(keys)} differ in length; expected one")
        flat = [column.reshape(len(column), -1).astype(np.float32) for column in columns]
        observation["vector"] = np.concatenate(flat, axis=1)
    if not observation:
        advice = "name those to join to a vector: --numbers KEY …"
        raise DataError(f"{path} has neither image nor vector, but {', '.join(sorted(arrays))}; {advice}")
    return observation


def read_array(arrays: Mapping[str, np.ndarray], key: str, path: Path, axes: int = 0) -> np.ndarray:
    """Return the real numbers (T, …) of a key. axes: expected number of axes; 0: any. Raises DataError."""
    if key not in arrays:
        raise DataError(f"{path} has no {key}, but {', '.join(sorted(arrays))}")
    values = arrays[key]
    if values.dtype.kind not in "biuf" or values.ndim == 0 or (axes and values.ndim != axes):
        expected = {0: "numbers (T, …)", 1: "numbers (T,)", 2: "numbers (T, A), of discrete actions one-hot"}[axes]
        raise DataError(f"{path}: {key} is {values.dtype} {values.shape}; expected {expected}")
    return values.astype(np.float32) if axes else values


def write_npz(recordings: Recordings, folder: Path) -> int:
    """Write one file for each episode into a folder, and return their number. Raises OSError."""
    count = 0
    for count, rows in enumerate(recordings.episodes, 1):
        arrays: dict[str, Any] = {
            **parts_of(rows["observation"]),
            "action": rows["action"],
            "reward": rows["reward"],
            "is_first": rows["is_first"] != 0,
            "is_terminal": rows["is_terminal"] != 0,
            "discount": 1 - rows["is_terminal"],
        }
        np.savez_compressed(folder / f"episode-{count:06}-{len(rows)}.npz", **arrays)
    return count


def parts_of(observation: np.ndarray) -> dict[str, np.ndarray]:
    """Return the observations of rows (T,): "image" (T, height, width, channels), "vector" (T, size), or both."""
    if observation.dtype.names:
        parts = {name: observation[name] for name in observation.dtype.names}
    else:
        parts = {"image" if observation.dtype == np.uint8 else "vector": observation}
    if "image" in parts:
        parts["image"] = parts["image"].transpose(0, 2, 3, 1)
    return parts


def box_of(values: np.ndarray) -> spaces.Box:
    """Return the space of observations (T, …)."""
    low, high = (0, 255) if values.dtype == np.uint8 else (-np.inf, np.inf)
    return spaces.Box(low, high, values.shape[1:], values.dtype)
