"""Checkpoints: the state of a run at the end of an iteration, in files that a crash cannot spoil."""

import io
import os
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch

FORMAT = 2  # to be raised when older programs or checkpoints would misunderstand each other


class CheckpointError(Exception):
    """There is no checkpoint to be had. Its one line says why."""


class Checkpointer:
    """Saves a run every `interval`-th iteration, keeps the newest two checkpoints, and brings the run back.

    parts: by name, each with `state_dict` and `load_state_dict` as torch's modules have them, of
    plain values, arrays and tensors only; among them the "replay" and the "curves".
    """

    def __init__(self, folder, parts, interval):
        self.folder, self.parts, self.interval = folder, parts, interval
        self.snapshot = None  # (iteration, state) at the end of the newest iteration
        self.written = None  # the same, of the newest checkpoint in the folder

    def __call__(self, iteration, last=False):
        """Take note of the end of an iteration; write it down if it is due, or the `last` one."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        self.snapshot = iteration, copy_to_cpu(state)
        if last or iteration % self.interval == 0:
            self.write()

    def write(self):
        """Write the end of the newest iteration, if it is not on disk yet. Raises OSError."""
        if self.snapshot is self.written:
            return
        iteration, state = self.snapshot
        content = io.BytesIO()
        torch.save({"format": FORMAT, "iteration": iteration, "state": state}, content)
        write_durably(self.folder / f"checkpoint-{iteration:06}.pt", content.getbuffer())
        before, self.written = self.written, self.snapshot
        kept = {checkpoint[0] for checkpoint in (before, self.written) if checkpoint}
        for path in [*checkpoints(self.folder), *self.folder.glob("checkpoint-*.tmp")]:
            if iteration_of(path) not in kept:
                path.unlink()
        if before:
            self.parts["replay"].discard(before[1]["replay"])

    def restore(self):
        """Put the run back to its newest good checkpoint; to its beginning, if it has made none yet."""
        if not checkpoints(self.folder):
            self.parts["curves"].load_state_dict({})
            return
        iteration, state = load_checkpoint(self.folder)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.snapshot = self.written = iteration, state


def checkpoints(folder):
    """The checkpoint files of a run, newest first."""
    return sorted(filter(iteration_of, Path(folder).iterdir()), key=iteration_of, reverse=True)


def iteration_of(path):
    """The iteration, counted from 1, whose checkpoint this file is; None for other files."""
    match = re.fullmatch(r"checkpoint-(\d+)\.pt", path.name)
    return match and int(match[1])


def load_checkpoint(folder):
    """The newest checkpoint of a run that can be read, (iteration, state), on the CPU. Says which ones cannot.

    Executes nothing that the file may hold. Raises CheckpointError.
    """
    paths = checkpoints(folder)
    for path in paths:
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:  # torch itself does not look at the checksums
                    raise ValueError("a checksum is wrong")
            content = torch.load(path, map_location="cpu", weights_only=True)
            found = content["format"]
            if found in (1, FORMAT):
                return content["iteration"], content["state"] if found == FORMAT else from_format_1(content["state"])
        except PermissionError:
            raise
        except Exception as error:  # whatever a damaged file leads its readers to raise
            print(f"warning: {path} cannot be read ({type(error).__name__}); trying the one before", file=sys.stderr)
            continue
        raise CheckpointError(f"{path} has format {found}, this program reads {FORMAT}: use the one that wrote it")
    raise CheckpointError(f"{folder}: {'no checkpoint can be read' if paths else 'there is no checkpoint yet'}")


def from_format_1(state):
    """What is said today with a state in which the algorithm kept the trainer's counters."""
    counters = ("iteration", "env_steps", "evaluation_average")
    trainer = {name: state["algorithm"].pop(name) for name in counters}
    return state | {"trainer": trainer | {"interaction_steps": 1000, "updates_left": 0.0}}


def write_durably(path, content):
    """Write bytes to a file, sync it, and only then give it its name: what had the name stays whole until then."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    folder = os.open(path.parent, os.O_RDONLY)  # the name itself is only safe once its folder is synced
    os.fsync(folder)
    os.close(folder)


def copy_to_cpu(state):
    """A copy of nested dicts, lists and tuples of tensors and plain values; arrays become lists."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, (np.ndarray, np.generic)):
        return state.tolist()
    if isinstance(state, dict):
        return {key: copy_to_cpu(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(copy_to_cpu(value) for value in state)
    return state
