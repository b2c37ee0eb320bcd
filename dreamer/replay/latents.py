"""Store per-step latent states. Updates overwrite them; checkpoints can restore old ones (copy on write)."""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamer.replay.mapped import MappedFiles, aligned_empty

ROWS = 4096  # states in a file


class StoredLatents:
    """Stores a latent state (L,) for each of the newest `capacity` steps, by the step's number.

    The states are rows in a pool of files, and `row` maps each step to its row. A row that a checkpoint refers to is
    never overwritten: when the step's latent state changes, it moves to a free row. So the pool holds the newest state
    of each step, and older states that kept checkpoints refer to.
    """

    def __init__(self, folder: Path, capacity: int, size: int):
        """folder: as for `MappedFiles`. capacity: in steps. size: L."""
        self.files = MappedFiles(folder, "contexts", ROWS, np.dtype((np.float32, (size,))))
        self.row: np.ndarray = np.full(capacity, -1, np.int32)  # of step n, at n modulo capacity; -1: there is none
        self.writable: np.ndarray = np.zeros(0, bool)  # by row: whether no checkpoint refers to it
        self.free: np.ndarray = np.zeros(0, np.int32)  # rows that nothing refers to
        self.touched: np.ndarray = np.zeros(0, bool)  # by row: whether it changed since the newest checkpoint
        self.checksums: np.ndarray = np.zeros(0, np.uint32)  # by row, as it was at the newest checkpoint
        self.kept_rows: list[np.ndarray] = []  # the rows of each older checkpoint that is kept
        self.newest = self.row[:0]  # the rows of the newest checkpoint
        self.unknown = 0  # number of first rows that may belong to other checkpoints

    def write(self, numbers: np.ndarray, states: np.ndarray) -> None:
        """Store the states (N, L) of the steps with these numbers (N,); of a step named twice, the last one counts.

        Raises OSError if the disk is full.
        """
        newest_first = numbers[::-1] % len(self.row)
        places, indices = np.unique(newest_first, return_index=True)  # the first of equal ones, so the last written
        rows = self.row[places]
        has_row = rows >= 0
        stays = has_row.copy()
        stays[has_row] = self.writable[rows[has_row]]
        rows[~stays] = self._take(np.count_nonzero(~stays))
        self.row[places] = rows
        self.touched[rows] = True
        states = states[::-1][indices]
        for number, in_file in _by_file(rows):
            self.files[number][rows[in_file] % ROWS] = states[in_file]

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Return the states (N, L) of the steps with these numbers (N,)."""
        rows = self.row[numbers % len(self.row)]
        states = aligned_empty((len(rows), *self.files.dtype.shape), np.float32)
        for number, in_file in _by_file(rows):
            states[in_file] = self.files[number][rows[in_file] % ROWS]
        return states

    def state_dict(self) -> dict[str, Any]:
        """Return the row of each step and the rows' checksums. Sync the rows to the disk first."""
        changed = np.flatnonzero(self.touched)
        for number, in_file in _by_file(changed):
            self.files.sync(number)
            self._compute_checksums(number, changed[in_file])
        self.touched[:] = False
        self.newest = self.row[: np.count_nonzero(self.row >= 0)].copy()
        self._find_free()
        checksums = torch.from_numpy(self.checksums[self.newest].view(np.int32))  # as bits: torch saves signed numbers
        return {"rows": torch.from_numpy(self.newest), "files": len(self.files), "checksums": checksums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Return to an earlier state. Rows that states before it refer to are not overwritten before `keep` is called.

        Raises DamagedError for missing and for damaged files, OSError for files that cannot be read or written now.
        """
        self.newest = state["rows"].numpy()
        self.kept_rows = []
        self.row[:] = -1
        self.row[: len(self.newest)] = self.newest
        self.files.open(range(state["files"]))
        for number in self.files:
            self.files.fill_holes(number)
        self.unknown = len(self.files) * ROWS
        self.touched = np.zeros(self.unknown, bool)
        self.checksums = np.zeros(self.unknown, np.uint32)
        for number, in_file in _by_file(self.newest):
            rows = self.newest[in_file]
            self._compute_checksums(number, rows)
            if "checksums" in state:  # older ones have none
                expected = state["checksums"].numpy().view(np.uint32)[in_file]
                self.files.check(number, self.checksums[rows].tolist(), expected.tolist())
        self._find_free()

    def open_read_only(self, state: Mapping[str, Any]) -> bool:
        """Open an earlier state for reading only. Return whether all its files are there:
        a run may still use the folder."""
        rows = state["rows"].numpy()
        self.row[:] = -1
        self.row[: len(rows)] = rows
        self.files.open_read_only(range(state["files"]))
        return len(self.files) == state["files"]

    def keep(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Keep the rows of these states and of the newest one; rows that only others refer to become free."""
        self.kept_rows = [state["rows"].numpy() for state in states]
        self.unknown = 0
        self._find_free()

    def _compute_checksums(self, number: int, rows: np.ndarray) -> None:
        """Compute the checksums of these rows, which are all in file `number`."""
        file = self.files[number]
        self.checksums[rows] = [zlib.crc32(file[row].data) for row in rows % ROWS]

    def _find_free(self) -> None:
        """Recompute which rows may be overwritten, and which of these no step uses."""
        self.writable = np.ones(len(self.files) * ROWS, bool)
        self.writable[: self.unknown] = False
        for rows in (*self.kept_rows, self.newest):
            self.writable[rows] = False
        unused = self.writable.copy()
        unused[self.row[self.row >= 0]] = False
        self.free = np.flatnonzero(unused).astype(np.int32)

    def _take(self, count: int) -> np.ndarray:
        """Remove `count` rows from the free ones and return them. Adds files while there are too few."""
        while len(self.free) < count:
            number = len(self.files)
            self.files.create(number)
            self.free = np.append(self.free, np.arange(number * ROWS, (number + 1) * ROWS, dtype=np.int32))
            self.writable = np.append(self.writable, np.ones(ROWS, bool))
            self.touched = np.append(self.touched, np.zeros(ROWS, bool))
            self.checksums = np.append(self.checksums, np.zeros(ROWS, np.uint32))
        rows, self.free = np.split(self.free, [count])
        return rows


def _by_file(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each file that holds some of the rows, and a mask of those rows."""
    numbers = rows // ROWS
    for number in np.unique(numbers):
        yield int(number), numbers == number
