"""The replay: a stream of steps on disk, from which windows of consecutive steps are drawn."""

import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dreamer.files import claim, delete, own_files

SEGMENT = 4096  # steps in a file


class Batch(NamedTuple):
    """Windows of the replay, indexed as in `collect.Step`; B windows of T steps, time is dim 1."""

    observation: torch.Tensor  # (B, T, 3, height, width) uint8, or (B, T, size) float32
    action: torch.Tensor  # (B, T, A)
    reward: torch.Tensor  # (B, T)
    is_first: torch.Tensor  # (B, T), 1.0 where an episode begins
    is_terminal: torch.Tensor  # (B, T), 1.0 where the task ended
    context: torch.Tensor = torch.empty(0)  # temporary


class ReplayBuffer:
    """Keeps the newest `capacity` agent steps in memory-mapped files; pixels once, as uint8.

    The files of `folder`/replay hold SEGMENT steps each and are only ever appended to, so what a
    checkpoint knows stays as it was whatever happens after it. Memory is the system's page cache. A
    window may run from the end of one episode into the next (`is_first` tells).
    """

    def __init__(self, folder, capacity, observation_shape, observation_dtype, action_size, seed):
        self.folder = Path(folder) / "replay"
        self.folder.mkdir(exist_ok=True)
        self.capacity = capacity
        self.end = 0  # steps ever stored; they are numbered from 0
        self.synced = 0  # steps known to be on the disk, not only in the system's memory
        self.kept = []  # ends of the states that may be gone back to; None if they are not known
        self.checksums = {}  # number of a segment → of its steps among these
        self.segments = {}  # number → its steps, from step number · SEGMENT on
        self.random = np.random.default_rng(seed)
        self.step_type = np.dtype(
            [
                ("observation", observation_dtype, observation_shape),
                ("action", np.float32, (action_size,)),
                ("reward", np.float32),
                ("is_first", np.float32),
                ("is_terminal", np.float32),
            ]
        )

    @property
    def start(self):
        """The number of the oldest step that is sampled."""
        return max(0, self.end - self.capacity)

    def __len__(self):
        return self.end - self.start

    def add(self, step):
        """Append one `Step`. Raises OSError if there is no space for it."""
        number, place = divmod(self.end, SEGMENT)
        if number not in self.segments:
            self.segments[number] = self._create_segment(number)
        for name in Batch._fields:
            self.segments[number][name][place] = getattr(step, name)
        self.end += 1

    def sample(self, batch_size, batch_length, random=None):
        """A `Batch` of windows whose starts are uniform over all valid ones.

        random: a generator to draw from instead of the replay's own, which then stays as it is.
        Raises ValueError while fewer than `batch_length` steps are stored.
        """
        if len(self) < batch_length:
            raise ValueError(f"{len(self)} steps are stored, a window of {batch_length} needs more")
        random = random or self.random
        starts = self.start + random.integers(len(self) - batch_length + 1, size=batch_size)
        return Batch(*map(torch.from_numpy, self.read(starts, batch_length)))

    def read(self, starts, length):
        """A `Batch` of numpy arrays: the windows of `length` steps from the steps with these numbers on."""
        fields = ((self.step_type[name].base, self.step_type[name].shape) for name in Batch._fields)
        windows = Batch(*(_aligned((len(starts), length, *shape), base) for base, shape in fields))
        for row, start in enumerate(starts):
            done = 0
            while done < length:
                number, place = divmod(int(start) + done, SEGMENT)
                piece = self.segments[number][place : place + length - done]
                for name, window in windows._asdict().items():
                    window[row, done : done + len(piece)] = piece[name]
                done += len(piece)
        return windows

    def state_dict(self):
        """How much is valid, its checksums, and the sampler. What it speaks of is on the disk when it returns."""
        checksums = dict.fromkeys(self._numbers(self.end), 0) | self.checksums
        for number in self._numbers(self.end):
            if (number + 1) * SEGMENT > self.synced:
                self._sync_segment(number)
                new = self.segments[number][max(0, self.synced - number * SEGMENT) : self.end - number * SEGMENT]
                checksums[number] = zlib.crc32(new, checksums[number])
        self.synced, self.checksums = self.end, {number: checksums[number] for number in self._numbers(self.end)}
        return {"end": self.end, "random": self.random.bit_generator.state, "checksums": self.checksums}

    def load_state_dict(self, state):
        """Go back to a state; steps that it does not know will be written over.

        Raises OSError for missing and for damaged files.
        """
        self.end = self.synced = state["end"]
        self.random.bit_generator.state = state["random"]
        self.segments = {number: self._open_segment(number) for number in self._numbers(self.end)}
        if self.end % SEGMENT:
            self._reserve(self._path(self.end // SEGMENT), "r+b")  # a copy may have holes
        self.kept = None
        self.checksums = {}
        for number, steps in self.segments.items():
            self.checksums[number] = zlib.crc32(steps[: self.end - number * SEGMENT])
            if "checksums" in state and state["checksums"][number] != self.checksums[number]:  # older ones have none
                raise OSError(f"{self._path(number)}: its checksum is wrong, this part of the replay is damaged")

    def keep(self, states):
        """Delete the files of steps that are too old for what is sampled, and for what was when `state_dict` returned
        one of these states or the newest. From now on also whenever a file is added."""
        self.kept = [state["end"] for state in states]
        self._delete_old()

    def _delete_old(self):
        if self.kept is None:
            return
        needed = {number for end in (*self.kept, self.synced, self.end) for number in self._numbers(end)}
        self.segments = {number: steps for number, steps in self.segments.items() if number in needed}
        own = (Path(name) for name in own_files(self.folder.parent) or ())
        old = (path for path in own if path.suffix == ".steps" and int(path.stem) not in needed)
        delete(self.folder.parent, map(str, old))

    def _numbers(self, end):
        """Of the segments of what is sampled when so many steps are stored."""
        return range(max(0, end - self.capacity) // SEGMENT, -(-end // SEGMENT))

    def _create_segment(self, number):
        self._delete_old()
        path = self._path(number)
        claim(self.folder.parent, f"{self.folder.name}/{path.name}")
        try:
            self._reserve(path, "wb")
        except OSError as error:
            path.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from None
        return self._open_segment(number)

    def _reserve(self, path, mode):
        """Space for the whole file: on a full disk, writing to a mapped one kills the process without a word."""
        size = SEGMENT * self.step_type.itemsize
        with path.open(mode) as file:
            os.posix_fallocate(file.fileno(), 0, size) if hasattr(os, "posix_fallocate") else file.truncate(size)

    def _open_segment(self, number):
        """The steps of a file, mapped into memory. No descriptor stays open."""
        path, size = self._path(number), SEGMENT * self.step_type.itemsize
        if not path.is_file() or path.stat().st_size != size:
            raise FileNotFoundError(f"{path}: this part of the replay is missing or damaged")
        return torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8).numpy().view(self.step_type)

    def _sync_segment(self, number):
        with self._path(number).open("rb") as file:
            os.fsync(file.fileno())  # of what is mapped, too

    def _path(self, number):
        return self.folder / f"{number:08}.steps"


def _aligned(shape, dtype):
    """An empty array in torch's memory, which is aligned: see `Policy.actions`."""
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype).numpy()
