"""The replay: a stream of steps on disk, from which windows of consecutive steps are drawn."""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from gym import spaces
from torch.utils._pytree import tree_map

from dreamer.replay.latents import Contexts
from dreamer.replay.mapped import MappedFiles, aligned_empty
from dreamer.replay.sampling import Windows

SEGMENT = 4096  # steps in a file


class Batch(NamedTuple):
    """Windows of the replay, indexed as in `collect.Step`; B windows of T steps, time is dim 1."""

    observation: torch.Tensor | dict  # (B, T, C, height, width) uint8, or (B, T, size) float32, or a dict of both
    action: torch.Tensor  # (B, T, A)
    reward: torch.Tensor  # (B, T)
    is_first: torch.Tensor  # (B, T), 1.0 where an episode begins
    is_terminal: torch.Tensor  # (B, T), 1.0 where the task ended
    context: torch.Tensor = torch.empty(0, 0)  # (B, F), that of each window's first step; F is 0 where none is stored

    def rows(self, index):
        """Some of the windows."""
        context = self.context[index] if len(self.context) else self.context
        return tree_map(lambda part: part[index], self._replace(context=()))._replace(context=context)

    def begin(self, length):
        """The first steps of each window."""
        return tree_map(lambda part: part[:, :length], self._replace(context=()))._replace(context=self.context)


STORED = Batch._fields[:-1]  # beside the contexts, which change


class ReplayBuffer:
    """Keeps the newest `capacity` agent steps in memory-mapped files; pixels once, as uint8.

    The files of `folder`/replay hold SEGMENT steps each and are only ever appended to, so what a
    checkpoint knows stays as it was whatever happens after it. Memory is the system's page cache. A
    window may run from the end of one episode into the next (`is_first` tells).

    context_size: F, of the latent states that are stored beside the steps; 0: none are. sampler: which windows are
    drawn; online: an `Online` queue of windows that come first.
    """

    def __init__(
        self,
        folder,
        capacity,
        observation_shape,
        observation_dtype,
        action_size,
        seed,
        context_size=0,
        sampler=None,
        online=None,
    ):
        self.folder = Path(folder) / "replay"
        self.folder.mkdir(exist_ok=True)
        self.capacity, self.context_size = capacity, context_size
        self.end = 0  # steps ever stored; they are numbered from 0
        self.synced = 0  # steps known to be on the disk, not only in the system's memory
        self.kept = []  # ends of the states that may be gone back to; None if they are not known
        self.checksums = {}  # number of a segment → of its steps among these
        self.random = np.random.default_rng(seed)
        self.sampler, self.online = sampler or Windows(), online
        self.step_type = np.dtype(
            [
                ("observation", observation_dtype, observation_shape),
                ("action", np.float32, (action_size,)),
                ("reward", np.float32),
                ("is_first", np.float32),
                ("is_terminal", np.float32),
            ]
        )
        self.segments = MappedFiles(self.folder, "steps", SEGMENT, self.step_type)  # number n: from step n · SEGMENT on
        self.latents = Contexts(self.folder, capacity, context_size) if context_size else None

    @property
    def start(self):
        """The number of the oldest step that is sampled."""
        return max(0, self.end - self.capacity)

    @property
    def steps(self):
        """The numbers of the steps that are sampled."""
        return range(self.start, self.end)

    def __len__(self):
        return self.end - self.start

    def add(self, step):
        """Append one `Step`. A context of size 0 counts as zeros. Raises OSError if there is no space for it."""
        number, place = divmod(self.end, SEGMENT)
        if number not in self.segments:
            self._delete_old()
            self.segments.create(number)
        if self.latents:
            context = np.broadcast_to(step.context if np.size(step.context) else np.float32(0), (1, self.context_size))
            self.latents.write(np.array([self.end]), context)
        _put({name: getattr(step, name) for name in STORED}, _fields(self.segments[number]), place)
        self.end += 1
        if self.online:
            self.online.added(self.end)

    def finish_episode(self):
        """The step that was added last was an episode's last one."""
        self.sampler.finish_episode(self.steps)

    # Windows

    def sample(self, batch_size, batch_length, random=None):
        """A `Batch` of windows that are drawn; random and errors: as for `draw`."""
        starts = self.draw(batch_size, batch_length, random)
        return self.windows(starts, batch_length)._replace(context=self.contexts(starts))

    def draw(self, batch_size, batch_length, random=None):
        """The numbers of the first steps (B,) of windows.

        random: a generator to draw from instead of the replay's own, which then stays as it is, as the queue of
        windows does. Raises ValueError while no window of `batch_length` steps is stored.
        """
        if self.longest_window() < batch_length:
            raise ValueError(f"{self.longest_window()} steps are stored, a window of {batch_length} needs more")
        waiting = self.online.take(self.steps, batch_size) if self.online and random is None else []
        others = batch_size - len(waiting)
        starts = self.sampler.draw(self.steps, batch_length, others, random or self.random)
        return np.array([*waiting, *starts], int)

    def longest_window(self):
        """The steps of the longest window that could be drawn."""
        return self.sampler.longest(self.steps)

    def windows(self, starts, length, empty=aligned_empty):
        """A `Batch` of the windows of `length` steps that begin with the steps `starts` (B,), without contexts.

        empty: makes the arrays that they are read into, from a shape and a dtype. Windows of `Episodes` begin as
        episodes do, since nothing is to be known of what was before.
        """
        batch = tree_map(torch.from_numpy, self.read(starts, length, empty))
        if self.sampler.starts_anew and not self.context_size:
            batch.is_first[:, 0] = 1
        return batch

    def read(self, starts, length, empty=aligned_empty):
        """The same as numpy arrays, as they are stored."""
        shape, none = (len(starts), length), np.empty(0, self.step_type)
        windows = tree_map(lambda part: empty((*shape, *part.shape[1:]), part.dtype), _fields(none))
        for row, start in enumerate(starts):
            done = 0
            while done < length:
                number, place = divmod(int(start) + done, SEGMENT)
                piece = self.segments[number][place : place + length - done]
                _put(_fields(piece), windows, (row, slice(done, done + len(piece))))
                done += len(piece)
        return Batch(**windows, context=empty((len(starts), 0), np.float32))

    # Contexts

    def contexts(self, starts):
        """Those of the steps with these numbers (B,), as a tensor (B, F)."""
        return torch.from_numpy(self.latents.read(starts)) if self.latents else torch.empty(len(starts), 0)

    def write_context(self, starts, feature):
        """The features (B, T, F) of the windows that begin with the steps `starts` become the contexts of the steps
        after theirs, as far as these are stored. Where windows overlap, the last one counts. Raises OSError."""
        numbers = np.add.outer(starts, np.arange(1, feature.shape[1] + 1)).ravel()
        stored = numbers < self.end
        self.latents.write(numbers[stored], feature.flatten(end_dim=1).float().cpu().numpy()[stored])

    # Saving and going on

    def state_dict(self):
        """How much is valid, its checksums, and the sampler. What it speaks of is on the disk when it returns."""
        checksums = dict.fromkeys(self._numbers(self.end), 0) | self.checksums
        for number in self._numbers(self.end):
            if (number + 1) * SEGMENT > self.synced:
                self.segments.sync(number)
                new = self.segments[number][max(0, self.synced - number * SEGMENT) : self.end - number * SEGMENT]
                checksums[number] = zlib.crc32(new, checksums[number])
        self.synced, self.checksums = self.end, {number: checksums[number] for number in self._numbers(self.end)}
        state = {"end": self.end, "random": self.random.bit_generator.state, "checksums": self.checksums}
        return state | {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state):
        """Go back to a state; steps that it does not know will be written over.

        Raises DamagedError for missing and for damaged files, OSError for what cannot be read or written now.
        """
        self.end = self.synced = state["end"]
        self.random.bit_generator.state = state["random"]
        self.segments.open(self._numbers(self.end))
        if self.end % SEGMENT:
            self.segments.fill_holes(self.end // SEGMENT)  # a copy may have holes
        self.kept = None
        self.checksums = {}
        for number, steps in self.segments.items():
            self.checksums[number] = zlib.crc32(steps[: self.end - number * SEGMENT])
            if "checksums" in state:  # older ones have none
                self.segments.check(number, self.checksums[number], state["checksums"][number])
        for name, part in self._parts().items():
            part.load_state_dict(state.get(name, {}))  # an older state has none

    def _parts(self):
        """Of its state."""
        parts = {"sampler": self.sampler, "online": self.online, "contexts": self.latents}
        return {name: part for name, part in parts.items() if part}

    def keep(self, states):
        """Delete the files of steps that are too old for what is sampled, and for what was when `state_dict` returned
        one of these states or the newest. From now on also whenever a file is added."""
        self.kept = [state["end"] for state in states]
        self._delete_old()
        if self.latents:
            self.latents.keep([state["contexts"] for state in states])

    def _delete_old(self):
        if self.kept is not None:
            ends = (*self.kept, self.synced, self.end)
            self.segments.delete_all_but({number for end in ends for number in self._numbers(end)})

    def _numbers(self, end):
        """Of the segments of what is sampled when so many steps are stored."""
        return range(max(0, end - self.capacity) // SEGMENT, -(-end // SEGMENT))


def observation_type(space):
    """(shape, dtype) of the observations of a space, for a `ReplayBuffer`: a structured dtype for those in parts."""
    if not isinstance(space, spaces.Dict):
        return space.shape, space.dtype
    return (), np.dtype([(name, part.dtype, part.shape) for name, part in space.spaces.items()])


def _fields(steps):
    """The parts of an array of steps, {name: array}; an observation in parts is such a dict, too."""
    return {name: _fields(steps[name]) for name in steps.dtype.names} if steps.dtype.names else steps


def _put(values, arrays, place):
    """Assign to a place in each of the arrays."""
    for name, array in arrays.items():
        if isinstance(array, dict):
            _put(values[name], array, place)
        else:
            array[place] = values[name]
