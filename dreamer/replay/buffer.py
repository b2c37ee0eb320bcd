"""Store a stream of steps on disk, and draw windows of consecutive steps from it."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch.utils._pytree import tree_map

from dreamer.replay.latents import StoredLatents
from dreamer.replay.mapped import MappedFiles, aligned_empty
from dreamer.replay.sampling import OnlineQueue, WindowSampler
from dreamer.replay.step import STEP_FIELDS, Batch, Step, assign_fields, fields, step_type

SEGMENT = 4096  # steps in a file


class ReplayBuffer:
    """Keeps the newest `capacity` agent steps in memory-mapped files; pixels once, as uint8.

    The files of `folder`/replay hold SEGMENT steps each and are only appended to, so the steps that a checkpoint counts
    never change. The system's page cache is the only memory they take. A window may run from the end of one episode
    into the next, where `is_first` is 1.
    """

    def __init__(
        self,
        folder: str | Path,
        capacity: int,
        observation_shape: tuple[int, ...],
        observation_dtype: np.dtype,
        action_size: int,
        seed: int,
        latent_size: int = 0,
        sampler: WindowSampler | None = None,
        online: OnlineQueue | None = None,
    ):
        """folder: of the run. capacity: agent steps. seed: of the draws.

        latent_size: F + M, the size of the latent states stored beside the steps; 0: none are stored. sampler: draws
        windows, by default uniformly. online: a queue of new windows, each sampled before windows are drawn.
        """
        self.folder = Path(folder) / "replay"
        self.folder.mkdir(exist_ok=True)
        self.capacity, self.latent_size = capacity, latent_size
        self.end = 0  # steps ever stored; they are numbered from 0
        self.synced = 0  # steps known to be on the disk, not only in the system's memory
        self.kept_ends: list[int] | None = []  # `end` of each state that may be loaded again; None: not known
        self.checksums: dict[int, int] = {}  # of the synced steps of each segment, by its number
        self.random = np.random.default_rng(seed)
        self.sampler, self.online = sampler or WindowSampler(), online
        self.step_type = step_type(observation_shape, observation_dtype, action_size)
        self.segments = MappedFiles(self.folder, "steps", SEGMENT, self.step_type)  # number n: from step n · SEGMENT on
        self.latents = StoredLatents(self.folder, capacity, latent_size) if latent_size else None

    @property
    def start(self) -> int:
        """The number of the oldest step that can be sampled."""
        return max(0, self.end - self.capacity)

    @property
    def steps(self) -> range:
        """The numbers of the steps that can be sampled."""
        return range(self.start, self.end)

    def __len__(self) -> int:
        return self.end - self.start

    def add(self, step: Step) -> None:
        """Append one step. A latent state of size 0 is stored as zeros. Raises OSError if the disk is full."""
        number, place = self._next_place()
        if self.latents is not None:
            latent = step.latent if np.size(step.latent) else np.float32(0)
            self.latents.write(np.array([self.end]), np.broadcast_to(latent, (1, self.latent_size)))
        assign_fields({name: getattr(step, name) for name in STEP_FIELDS}, fields(self.segments[number]), place)
        self.end += 1
        if self.online:
            self.online.step_added(self.end)

    def add_episode(self, rows: np.ndarray) -> None:
        """Append a whole recorded episode, rows (T,) of `step_type`. Its windows do not enter the `online` queue."""
        while len(rows):
            number, place = self._next_place()
            fitting, rows = np.split(rows, [SEGMENT - place])
            self.segments[number][place : place + len(fitting)] = fitting
            if self.latents is not None:
                zeros = np.zeros((len(fitting), self.latent_size), np.float32)
                self.latents.write(np.arange(self.end, self.end + len(fitting)), zeros)
            self.end += len(fitting)
        self.finish_episode()

    def _next_place(self) -> tuple[int, int]:
        """Return (number of the next step's segment, the step's place in it). Create the segment if it is missing."""
        number, place = divmod(self.end, SEGMENT)
        if number not in self.segments:
            self._delete_old()
            self.segments.create(number)
        return number, place

    def finish_episode(self) -> None:
        """Note that the newest step was the last one of its episode."""
        self.sampler.finish_episode(self.steps)

    # Windows

    def sample(self, batch_size: int, batch_length: int, random: np.random.Generator | None = None) -> Batch:
        """Draw a `Batch` of windows, with the latent states before them. Arguments and errors as for `draw`."""
        starts = self.draw(batch_size, batch_length, random)
        return self.windows(starts, batch_length)._replace(latent=self.read_latents(starts))

    def draw(self, batch_size: int, batch_length: int, random: np.random.Generator | None = None) -> np.ndarray:
        """Draw windows and return the numbers of their first steps, (B,).

        random: a generator to use in place of the replay's own; then neither the replay's generator nor its queue of
        new windows changes. Raises ValueError until a window of `batch_length` steps is stored.
        """
        if self.longest_window() < batch_length:
            raise ValueError(
                f"the longest window stored has {self.longest_window()} steps; expected {batch_length} or more"
            )
        queued = self.online.take(self.steps, batch_size) if self.online and random is None else []
        starts = self.sampler.draw(self.steps, batch_length, batch_size - len(queued), random or self.random)
        return np.array([*queued, *starts], int)

    def longest_window(self) -> int:
        """Return the length in steps of the longest window that could be drawn."""
        return self.sampler.longest(self.steps)

    def windows(self, starts: np.ndarray, length: int, empty: Callable[..., np.ndarray] = aligned_empty) -> Batch:
        """Return the windows of `length` steps that begin with the steps `starts` (B,), without latent states.

        empty: allocates an array of a shape and a dtype. If the sampler draws within episodes and no latent states are
        stored, `is_first` is 1 at the beginning of each window.
        """
        batch = tree_map(torch.from_numpy, self.read(starts, length, empty))
        if self.sampler.starts_episode and not self.latent_size:
            batch.is_first[:, 0] = 1
        return batch

    def read(self, starts: Sequence[int] | np.ndarray, length: int, empty: Callable = aligned_empty) -> Batch:
        """Return the windows that `windows` would, as numpy arrays and with `is_first` as it was stored."""
        no_steps = fields(np.empty(0, self.step_type))
        windows = tree_map(lambda part: empty((len(starts), length, *part.shape[1:]), part.dtype), no_steps)
        for row, start in enumerate(starts):
            copied = 0
            while copied < length:  # a window may continue in the next segment
                number, place = divmod(int(start) + copied, SEGMENT)
                steps = self.segments[number][place : place + length - copied]
                assign_fields(fields(steps), windows, (row, slice(copied, copied + len(steps))))
                copied += len(steps)
        return Batch(**windows, latent=empty((len(starts), 0), np.float32))

    # Latent states

    def read_latents(self, starts: np.ndarray) -> torch.Tensor:
        """Return the latent states stored with the steps `starts` (B,), (B, F + M); (B, 0) without any.

        The state that is stored with step t is s_{t-1}, from which a window that begins with step t starts.
        """
        if self.latents is None:
            return torch.empty(len(starts), 0)
        return torch.from_numpy(self.latents.read(starts))

    def write_latents(self, starts: np.ndarray, stored: torch.Tensor) -> None:
        """Store the latent states (B, T, F + M) of the windows that begin with the steps `starts` (B,).

        The state of a step is stored with the step after it, if there is one yet. Where windows overlap, the last one
        counts. Raises OSError if the disk is full.
        """
        assert self.latents is not None
        numbers = np.add.outer(starts, np.arange(1, stored.shape[1] + 1)).ravel()
        is_stored = numbers < self.end
        latents = stored.flatten(end_dim=1).float().cpu().numpy()
        self.latents.write(numbers[is_stored], latents[is_stored])

    # Saving and resuming

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps are valid, their checksums and the state of the sampling.

        The files with these steps are synced to the disk first.
        """
        checksums = dict.fromkeys(self._numbers(self.end), 0) | self.checksums
        for number in self._numbers(self.end):
            if (number + 1) * SEGMENT > self.synced:
                self.segments.sync(number)
                first = number * SEGMENT
                new_steps = self.segments[number][max(0, self.synced - first) : self.end - first]
                checksums[number] = zlib.crc32(new_steps.data, checksums[number])
        self.synced = self.end
        self.checksums = {number: checksums[number] for number in self._numbers(self.end)}
        state = {"end": self.end, "random": self.random.bit_generator.state, "checksums": self.checksums}
        return state | {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Return to an earlier state; steps stored after it will be overwritten.

        Raises DamagedError for missing and for damaged files, OSError for files that cannot be read or written now.
        """
        self.end = self.synced = state["end"]
        self.random.bit_generator.state = state["random"]
        self.segments.open(self._numbers(self.end))
        if self.end % SEGMENT:
            self.segments.fill_holes(self.end // SEGMENT)  # a copied file may have holes
        self.kept_ends = None
        self.checksums = {}
        for number, steps in self.segments.items():
            self.checksums[number] = zlib.crc32(steps[: self.end - number * SEGMENT].data)
            if "checksums" in state:  # older ones have none
                self.segments.check(number, self.checksums[number], state["checksums"][number])
        for name, part in self._parts().items():
            part.load_state_dict(state.get(name, {}))  # an older state has none

    def _parts(self) -> dict[str, Any]:
        """Return the parts whose states are saved with the replay's, by their names in that state."""
        parts = {"sampler": self.sampler, "online": self.online, "contexts": self.latents}
        return {name: part for name, part in parts.items() if part}

    def keep(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Delete files that neither these states nor the newest one needs, now and whenever a file is added."""
        self.kept_ends = [state["end"] for state in states]
        self._delete_old()
        if self.latents is not None:
            self.latents.keep([state["contexts"] for state in states])

    def _delete_old(self) -> None:
        if self.kept_ends is not None:
            ends = (*self.kept_ends, self.synced, self.end)
            self.segments.delete_all_but({number for end in ends for number in self._numbers(end)})

    def _numbers(self, end: int) -> range:
        """Return the numbers of the segments that hold the newest `capacity` of `end` steps."""
        return range(max(0, end - self.capacity) // SEGMENT, -(-end // SEGMENT))


def observation_type(space: spaces.Space) -> tuple[tuple[int, ...], np.dtype]:
    """Return (shape, dtype) of a space's observations, for a `ReplayBuffer`. A Dict has a structured dtype."""
    if not isinstance(space, spaces.Dict):
        return space.shape or (), np.dtype(space.dtype)
    return (), np.dtype([(name, part.dtype, part.shape) for name, part in space.spaces.items()])
