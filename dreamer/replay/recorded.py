"""Read and write recorded episodes on disk: those of a run, or of a dataset.

A dataset is a folder with the steps in `replay/`, in the same files as in a run, and their description in dataset.json.
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dreamer.errors import DamagedError, DataError, in_words
from dreamer.files import naming_errors, write_durably
from dreamer.replay.buffer import SEGMENT, ReplayBuffer
from dreamer.replay.mapped import MappedFiles
from dreamer.replay.step import step_type

FILE = "dataset.json"
FORMAT = 1
UNLIMITED = 10**12  # steps: a capacity that no disk can hold


class DatasetInfo(NamedTuple):
    """Describes recorded episodes in plain values."""

    source: str  # where they come from
    spaces: dict[str, Any] = {}  # the environment's own, as `Spaces.state_dict` gives them; {}: not known
    frame_skip: int | None = None  # env steps that each action took; None: not known


class StoredSteps:
    """Reads steps from the files of a replay, and never changes them."""

    def __init__(self, folder: Path, row_type: np.dtype, steps: range, checksums: Mapping[int, int]) -> None:
        """folder: of a run or a dataset. row_type: as from `step_type`. steps: their numbers. checksums: by segment.

        Raises DataError for files that are missing or damaged.
        """
        self.steps = steps
        self.segments = MappedFiles(folder / "replay", "steps", SEGMENT, row_type)
        try:
            self.segments.open(range(steps.start // SEGMENT, -(-steps.stop // SEGMENT)))
            for number, rows in self.segments.items():
                if number in checksums:  # older runs have none
                    checksum = zlib.crc32(rows[: steps.stop - number * SEGMENT].data)
                    self.segments.check(number, checksum, checksums[number])
        except DamagedError as error:
            raise DataError(str(error)) from None

    def episodes(self) -> Iterator[np.ndarray]:
        """Yield each episode whose first step is stored, as rows (T,)."""
        borders = self.steps.start + np.flatnonzero(self._read("is_first", self.steps))
        for start, stop in zip(borders, [*borders[1:], self.steps.stop], strict=True):
            yield self._read(None, range(start, stop))

    def _read(self, name: str | None, steps: range) -> np.ndarray:
        """Return the part `name` of these steps; None: all parts."""
        parts = []
        for number in range(steps.start // SEGMENT, -(-steps.stop // SEGMENT)):
            first = number * SEGMENT
            rows = self.segments[number][max(0, steps.start - first) : steps.stop - first]
            parts.append(rows if name is None else rows[name])
        return np.concatenate(parts)


class Dataset:
    """Opens a folder of recorded episodes that `DatasetWriter` has written."""

    def __init__(self, folder: Path) -> None:
        """Read the description of a dataset. Raises DataError if there is none, or if it is damaged."""
        self.folder = folder
        path = folder / FILE
        if not path.is_file():
            raise DataError(f"{folder} is not a dataset: it has no {FILE}; dreamer data import writes one")
        try:
            content = json.loads(path.read_bytes())
            found_format = content["format"]
            if found_format == FORMAT:
                self.about = DatasetInfo(**content["about"])
                self.count, self.length = int(content["episodes"]), int(content["steps"])
                self.row_type = _row_type_of(content["parts"], content["action_size"])
                self.checksums = {int(number): int(checksum) for number, checksum in content["checksums"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is damaged ({in_words(error)}); import the episodes again") from None
        if found_format != FORMAT:
            raise DataError(
                f"{path} has format {found_format!r}, this program reads {FORMAT}; import the episodes again"
            )

    def stored(self) -> StoredSteps:
        """Return the dataset's steps, after a check of their checksums. Raises DataError for damaged ones."""
        return StoredSteps(self.folder, self.row_type, range(self.length), self.checksums)


class DatasetWriter:
    """Writes episodes into a folder, then their description."""

    def __init__(self, folder: Path, row_type: np.dtype) -> None:
        """row_type: as from `step_type`."""
        self.folder, self.row_type, self.count = folder, row_type, 0
        observation = row_type["observation"]
        action_size = row_type["action"].shape[0]
        self.replay = ReplayBuffer(folder, UNLIMITED, observation.shape, observation.base, action_size, seed=0)

    def add(self, rows: np.ndarray) -> None:
        """Add an episode, rows (T,)."""
        self.replay.add_episode(rows)
        self.count += 1

    def finish(self, about: DatasetInfo) -> None:
        """Write the description of the episodes. Raises DataError if there are none, OSError."""
        if not self.count:
            raise DataError(f"{about.source} holds no episode; expected one or more")
        content = {
            "format": FORMAT,
            "episodes": self.count,
            "steps": self.replay.end,
            "parts": _plain(self.row_type["observation"]),
            "action_size": self.row_type["action"].shape[0],
            "about": about._asdict(),
            "checksums": self.replay.state_dict()["checksums"],
        }
        write_durably(self.folder / FILE, json.dumps(content, indent=1).encode())


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to write into. Rename it to `folder` at the end of the block, or delete it on an error.

    Raises DataError if `folder` holds something, OSError.
    """
    is_empty_folder = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not is_empty_folder:
        raise DataError(f"{folder} exists and is not an empty folder; name another one")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        with naming_errors(folder):
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _plain(observation: np.dtype) -> dict[str, Any]:
    """Return the parts of an observation, {name: (type, shape)}; without parts, {"": (type, shape)}."""
    parts = {name: observation[name] for name in observation.names or ()} or {"": observation}
    return {name: (str(part.base), part.shape) for name, part in parts.items()}


def _row_type_of(parts: Mapping[str, Any], action_size: int) -> np.dtype:
    """Return the type of a row. parts: as from `_plain`."""
    if list(parts) == [""]:
        dtype, shape = parts[""]
        return step_type(tuple(shape), np.dtype(dtype), action_size)
    observation = np.dtype([(name, np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in parts.items()])
    return step_type((), observation, action_size)


def describe_rows(row_type: np.dtype) -> str:
    """Return the parts of a row's observation and the size of its action, as text."""
    observation = row_type["observation"]
    parts: Mapping[str, np.dtype] = {name: observation[name] for name in observation.names or ()}
    words = [f"{name} {part.base} {part.shape}" for name, part in parts.items()]
    if not words:
        words = [f"{'image' if observation.base == np.uint8 else 'vector'} {observation.base} {observation.shape}"]
    return f"{', '.join(words)}, actions {row_type['action'].shape}"
