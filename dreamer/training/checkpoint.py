"""Checkpoints: the state of a run at the end of an iteration, in files that a crash cannot spoil."""

import io
import itertools
import os
import re
import shutil
import sys
import zipfile
from contextlib import contextmanager

import numpy as np
import torch

from dreamer import distributed
from dreamer.errors import CheckpointError, ConfigError, EnvError, EnvFault, NotFiniteError
from dreamer.files import (
    EVER_WRITTEN,
    claim,
    delete,
    is_plain,
    lookalikes,
    naming,
    open_own,
    own_files,
    sync_folder,
    write_durably,
)
from dreamer.modules.loading import load_fitting
from dreamer.training import program
from dreamer.training.run_folder import first_folder
from dreamer.training.signals import signals_deferred, signals_ignored

FORMAT = 2  # to be raised when older programs or checkpoints would misunderstand each other
PLAIN = (type(None), bool, int, float, complex, str, bytes)


class Checkpointer:
    """Saves a run every `interval`-th iteration, keeps the newest two checkpoints, and brings the run back.

    parts: by name, each with `state_dict` and `load_state_dict` as torch's modules have them, of plain values, arrays
    and tensors only; among them the "replay". They are loaded in their order: first those that may refuse, last those
    that cut files.

    Ranks have a folder each. None comes to the end of an iteration before all do, so they differ by one at most, and
    two checkpoints of each are enough to find one iteration that all have.
    """

    def __init__(self, folder, parts, interval):
        self.folder, self.parts, self.interval = folder, parts, interval
        self.snapshot = None  # (iteration, state) at the end of the newest iteration
        self.written = None  # the same, of the newest checkpoint in the folder

    def __call__(self, iteration, last=False):
        """Take note of the end of an iteration; write it down if it is due, or the `last` one."""
        with signals_deferred():  # a stop finds all ranks with the same snapshot
            distributed.meet()
            self.snapshot = iteration, self.state()
        if last or iteration % self.interval == 0:
            self.write()

    def state(self):
        """A copy of the state of all parts. Raises CheckpointError for one that could not be read back."""
        return {name: copy_to_cpu(part.state_dict(), name) for name, part in self.parts.items()}

    def write(self):
        """Write the end of the newest iteration, if it is not on disk yet. Raises OSError."""
        if self.snapshot is self.written:
            return
        iteration, state = self.snapshot
        content = io.BytesIO()
        torch.save({"format": FORMAT, "iteration": iteration, "state": state}, content)
        name = f"checkpoint-{iteration:06}.pt"
        claim(self.folder, name, f"{name}.tmp")
        write_durably(self.folder / name, content.getbuffer())
        claim(self.folder, EVER_WRITTEN, new=False)
        kept = [checkpoint for checkpoint in (self.written, self.snapshot) if checkpoint]
        self.written = self.snapshot
        self.delete_all_but(iteration for iteration, _ in kept)
        self.parts["replay"].keep([state["replay"] for _, state in kept])

    def delete_all_but(self, iterations):
        kept = {f"checkpoint-{iteration:06}.pt" for iteration in iterations}
        own = {name for name in own_files(self.folder) or () if name.startswith("checkpoint-")}
        delete(self.folder, own - kept - {f"{name}.tmp" for name in kept} - {EVER_WRITTEN})

    def restore(self):
        """Put the run back to its newest good checkpoint, of an iteration that all ranks hold; to its beginning, if one
        of them has made none yet. What only some hold is deleted: it is not of the past of what comes now.

        Raises CheckpointError if it has made some and none can be used.
        """
        own, known = own_files(self.folder), checkpoints(self.folder)
        if not known and (lookalikes(self.folder) if own is None else EVER_WRITTEN in own):
            advice = f"to start anew: {program.PROGRAM} --config {self.folder}/config.yml"
            raise CheckpointError(f"{self.folder}: its checkpoints are gone; {advice}")
        if own is None:
            claim(self.folder, *lookalikes(self.folder), *(known and [EVER_WRITTEN]), new=False)
        if distributed.every(known):
            self.snapshot = self.written = load_checkpoint(self.folder, self.load, together=True)
            self.move_aside(path for path in known if iteration_of(path) > self.written[0])
        else:
            delete(self.folder, [EVER_WRITTEN])
            self.parts["curves"].load_state_dict({})
            self.state()
        self.delete_all_but(distributed.common(map(iteration_of, known)))

    def move_aside(self, paths):
        """Rename those of these checkpoints that are the run's own. No later start takes one whose curves and steps
        are cut, even if it can be read then."""
        own = own_files(self.folder)
        for path in (path for path in paths if path.name in own):
            names = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
            aside = next(name for name in names if not os.path.lexists(name))
            path.rename(aside)
            print(f"warning: {path.name} is now {aside}; going on from iteration {self.written[0]}", file=sys.stderr)
        with naming(self.folder):
            sync_folder(self.folder)

    def load(self, state):
        missing = self.parts.keys() - state.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


@contextmanager
def last_iteration_kept(checkpointer, folder, is_new, told):
    """Whatever ends the block, the end of the last finished iteration is on the disk after it.

    folder: of the run. told: exceptions of which one line is told anyway; after others a line says how to go on. The
    folder of a run that is_new and cannot work is removed.
    """
    try:
        yield
    except BaseException as stop:
        try:
            with signals_ignored():
                checkpointer.write()
        except OSError as error:
            if str(error) != str(stop):
                print(f"error: the last iteration is not saved: {error}", file=sys.stderr)
        if distributed.rank() == 0 and not isinstance(stop, told):
            print(f"stopped; to go on: {program.TRAINER} --resume {folder}", file=sys.stderr)
        if is_new and isinstance(stop, (ConfigError, CheckpointError)) and not checkpointer.written:
            shutil.rmtree(folder)
        raise


def checkpoints(folder):
    """The checkpoint files of a run, or in the folder of one of its ranks, newest first."""
    paths = (path for path in first_folder(folder).iterdir() if iteration_of(path) and is_plain(path))
    return sorted(paths, key=iteration_of, reverse=True)


def iteration_of(path):
    """The iteration, counted from 1, whose checkpoint this file is; None for other files."""
    match = re.fullmatch(r"checkpoint-(\d{6,})\.pt", path.name)
    return match and int(match[1])


def load_checkpoint(folder, use=lambda state: None, together=False):
    """The newest checkpoint of a run that can be read, (iteration, state), on the CPU. Says which ones cannot.

    use: called with the state; what it raises, but for ConfigError and an environment's errors, makes this checkpoint
    unusable, too. together: whether all ranks are to find the same iteration, each in its own folder. Executes nothing
    that a file may hold. Raises CheckpointError if there is none, and if the system cannot read one now.
    """
    paths = checkpoints(folder)
    held = distributed.common(map(iteration_of, paths)) if together else set(map(iteration_of, paths))
    for path in (path for path in paths if iteration_of(path) in held):
        try:
            state, usable = read_checkpoint(path), True
            use(state)
        except (ConfigError, CheckpointError, EnvError, EnvFault):
            raise
        except Exception as error:  # whatever a damaged file leads its readers to raise
            reason = " ".join(f"{type(error).__name__}: {error}".split()).split(". ")[0][:300]
            if is_of_the_moment(error):
                advice = "try again; to go on from the one before instead, move it away"
                raise CheckpointError(f"{path} cannot be used now ({reason}): {advice}") from None
            print(f"warning: {path} cannot be used ({reason}); trying the one before", file=sys.stderr)
            usable = False
        if distributed.every(usable) if together else usable:
            return iteration_of(path), state
    raise CheckpointError(f"{folder}: {'no checkpoint can be used' if paths else 'there is no checkpoint yet'}")


def is_of_the_moment(error):
    """Whether an error tells of the system or its memory, which may be well again, and not of what a file holds."""
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):  # torch's, of the CPU
        return True
    system = OSError, MemoryError, torch.cuda.OutOfMemoryError
    return isinstance(error, system) and not isinstance(error, FileNotFoundError)


def read_checkpoint(path):
    """The state in a file. Raises CheckpointError if another program is needed, OSError if the system cannot read it,
    and anything else if it is damaged."""
    with naming(path), open_own(path, "rb") as opened:
        file = io.BytesIO(opened.read())  # at once: what its readers raise from here on is about what it holds
    with zipfile.ZipFile(file) as archive:
        if archive.testzip() is not None:  # torch itself does not look at the checksums
            raise ValueError("a checksum is wrong")
    file.seek(0)
    content = torch.load(file, map_location="cpu", weights_only=True)
    found, iteration, state = content["format"], content["iteration"], content["state"]
    if found not in (1, FORMAT):
        raise CheckpointError(f"{path} has format {found}, this program reads {FORMAT}: use the one that wrote it")
    if iteration != iteration_of(path):
        raise ValueError(f"it is a copy of that of iteration {iteration}")
    return {"configuration": {}} | (state if found == FORMAT else from_format_1(state))


def from_format_1(state):
    """What is said today with a state in which the algorithm kept the trainer's counters."""
    counters = ("iteration", "env_steps", "evaluation_average")
    trainer = {name: state["algorithm"].pop(name) for name in counters}
    return state | {"trainer": trainer | {"interaction_steps": 1000, "updates_left": 0.0}}


def copy_to_cpu(state, name="state"):
    """A copy of nested dicts, lists and tuples of tensors and plain values; arrays become lists.

    Raises CheckpointError, which names the part, for what could be saved but never read back.
    """
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, (np.ndarray, np.generic)):
        state = state.tolist()
    if isinstance(state, dict):
        return {copy_to_cpu(key, f"{name}, a key"): copy_to_cpu(state[key], f"{name}[{key!r}]") for key in state}
    if type(state) in (list, tuple, set):
        return type(state)(copy_to_cpu(value, name) for value in state)
    if type(state) not in PLAIN:
        advice = "let its state_dict give numbers, text, lists, tuples, sets, dicts, arrays and tensors only"
        raise CheckpointError(f"{name}: a {type(state).__name__} cannot be saved; {advice}")
    return state


def load_networks(networks, folder):
    """Load those networks that the newest checkpoint of a run has, too. Returns (iteration, env steps) of it.

    Raises CheckpointError, ConfigError if they differ in size, or NotFiniteError.
    """
    env_steps = None

    def use(state):
        nonlocal env_steps
        saved, env_steps = state["algorithm"]["networks"], state["trainer"]["env_steps"]
        for name in sorted(networks.keys() & saved.keys()):
            load_fitting(networks[name], saved[name], f"the {name} of {folder}")

    iteration, _ = load_checkpoint(folder, use)
    for name, network in networks.items():
        if not all(part.isfinite().all() for part in network.state_dict().values()):
            raise NotFiniteError(f"not finite: weights of the {name} of {folder}")
    return iteration, env_steps
