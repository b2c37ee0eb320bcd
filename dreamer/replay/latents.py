"""The replay's contexts: a vector for each step that changes all the time, and a past that can be gone back to."""

import zlib

import numpy as np
import torch

from dreamer.replay.mapped import MappedFiles, aligned_empty

ROWS = 4096  # vectors in a file


class Contexts:
    """A vector (F,) of each of the newest `capacity` steps, by the step's number.

    The vectors are the rows of a pool of files, and each step knows its row. A row that a state speaks of is never
    written to: the vector of a step that refers to it moves to a free row when it changes. So the pool holds what is
    sampled, and what changed since the oldest state that may be gone back to.
    """

    def __init__(self, folder, capacity, size):
        """folder: as for `MappedFiles`. size: F."""
        self.files = MappedFiles(folder, "contexts", ROWS, (np.float32, (size,)))
        self.row = np.full(capacity, -1, np.int32)  # of step n, at n modulo capacity; -1: there is none
        self.writable = np.zeros(0, bool)  # by row: whether no state speaks of it
        self.free = np.zeros(0, np.int32)  # rows that nothing refers to
        self.touched = np.zeros(0, bool)  # by row: whether it changed since the newest state
        self.checksums = np.zeros(0, np.uint32)  # by row, as it was at the newest state
        self.kept, self.newest = [], self.row[:0]  # rows of the states that may be gone back to
        self.unknown = 0  # so many of the first rows may belong to other states

    def write(self, numbers, vectors):
        """vectors (N, F) of the steps with these numbers (N,); of a step that is named twice, the last one counts.

        Raises OSError if there is no space for them.
        """
        places, last = np.unique(numbers[::-1] % len(self.row), return_index=True)
        rows = self.row[places]
        moves = rows < 0
        moves[~moves] = ~self.writable[rows[~moves]]
        rows[moves] = self._take(np.count_nonzero(moves))
        self.row[places], self.touched[rows] = rows, True
        vectors = vectors[::-1][last]
        for number, inside in _by_file(rows):
            self.files[number][rows[inside] % ROWS] = vectors[inside]

    def read(self, numbers):
        """(N, F): of the steps with these numbers (N,)."""
        rows = self.row[numbers % len(self.row)]
        vectors = aligned_empty((len(rows), *self.files.dtype.shape), np.float32)
        for number, inside in _by_file(rows):
            vectors[inside] = self.files[number][rows[inside] % ROWS]
        return vectors

    def state_dict(self):
        """The row of each step, and its checksum. What stands in them is on the disk when it returns."""
        changed = np.flatnonzero(self.touched)
        for number, inside in _by_file(changed):
            self.files.sync(number)
            self._compute_checksums(number, changed[inside])
        self.touched[:] = False
        self.newest = self.row[: np.count_nonzero(self.row >= 0)].copy()
        self._find_free()
        checksums = torch.from_numpy(self.checksums[self.newest].view(np.int32))  # as bits: torch saves signed numbers
        return {"rows": torch.from_numpy(self.newest), "files": len(self.files), "checksums": checksums}

    def load_state_dict(self, state):
        """Go back to a state. Nothing of what states before it spoke of is written to before `keep` names them.

        Raises DamagedError for missing and for damaged files, OSError for what cannot be read or written now.
        """
        self.newest, self.kept = state["rows"].numpy(), []
        self.row[:] = -1
        self.row[: len(self.newest)] = self.newest
        self.files.open(range(state["files"]))
        for number in self.files:
            self.files.fill_holes(number)
        self.unknown = len(self.files) * ROWS
        self.touched, self.checksums = np.zeros(self.unknown, bool), np.zeros(self.unknown, np.uint32)
        for number, inside in _by_file(self.newest):
            rows = self.newest[inside]
            self._compute_checksums(number, rows)
            if "checksums" in state:  # older ones have none
                expected = state["checksums"].numpy().view(np.uint32)[inside]
                self.files.check(number, self.checksums[rows].tolist(), expected.tolist())
        self._find_free()

    def keep(self, states):
        """Only these states and the newest may be gone back to: what others alone spoke of is free."""
        self.kept, self.unknown = [state["rows"].numpy() for state in states], 0
        self._find_free()

    def _compute_checksums(self, number, rows):
        """Of these rows, which all stand in one file."""
        file = self.files[number]
        self.checksums[rows] = [zlib.crc32(file[row]) for row in rows % ROWS]

    def _find_free(self):
        self.writable = np.ones(len(self.files) * ROWS, bool)
        self.writable[: self.unknown] = False
        for rows in (*self.kept, self.newest):
            self.writable[rows] = False
        unused = self.writable.copy()
        unused[self.row[self.row >= 0]] = False
        self.free = np.flatnonzero(unused).astype(np.int32)

    def _take(self, count):
        """So many free rows."""
        while len(self.free) < count:
            number = len(self.files)
            self.files.create(number)
            self.free = np.append(self.free, np.arange(number * ROWS, (number + 1) * ROWS, dtype=np.int32))
            self.writable = np.append(self.writable, np.ones(ROWS, bool))
            self.touched = np.append(self.touched, np.zeros(ROWS, bool))
            self.checksums = np.append(self.checksums, np.zeros(ROWS, np.uint32))
        rows, self.free = np.split(self.free, [count])
        return rows


def _by_file(rows):
    """The file of each of the rows: pairs of its number and which of the rows are in it."""
    numbers = rows // ROWS
    for number in np.unique(numbers):
        yield int(number), numbers == number
