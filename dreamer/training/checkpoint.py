"""Write and restore checkpoints: the state of a run at the end of an iteration, in files that a crash cannot damage."""

import io
import itertools
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dreamer import distributed
from dreamer.errors import CheckpointError, ConfigError
from dreamer.files import (
    EVER_WRITTEN,
    NEWEST,
    claim,
    delete,
    is_plain,
    legacy_files,
    link_durably,
    naming_errors,
    owned_files,
    sync_folder,
    write_durably,
)
from dreamer.modules.loading import check_weights, load_weights
from dreamer.training import program
from dreamer.training.checkpoint_file import (
    BEST_FILE,
    FORMAT,
    checkpoint_name,
    checkpoints,
    copy_to_cpu,
    iteration_of,
    load_checkpoint,
    load_chosen,
)
from dreamer.training.checkpoint_retention import CheckpointRetention, retained_beside
from dreamer.training.signals import signals_deferred, signals_ignored

Snapshot = tuple[int, dict[str, Any]]  # an iteration and the state of all parts at its end


class Checkpointer:
    """Saves a run when a checkpoint is due, keeps the newest two and those that `retention` chooses, and restores it.

    Each data-parallel worker has a folder of its own. All workers wait for each other at the end of an iteration, so
    they differ by one iteration at most, and two checkpoints of each are enough to find an iteration that all have.
    """

    def __init__(self, folder: Path, parts: Mapping[str, Any], retention: CheckpointRetention) -> None:
        """parts: by name, among them "curves" and "replay". Each has `state_dict` and `load_state_dict`, as torch's
        modules have, of plain values, arrays and tensors. They are loaded in their order: first those that may refuse,
        last those that cut files. retention: is saved with them, as "kept".
        """
        self.folder, self.parts, self.retention = folder, parts, retention
        self.linked: int | None = None  # the iteration whose checkpoint BEST_FILE is a link to
        self.snapshot: Snapshot | None = None  # of the newest iteration
        self.written: Snapshot | None = None  # in the newest checkpoint of the folder

    def __call__(self, iteration: int, last: bool = False) -> None:
        """Copy the state at the end of an iteration, and write it if a checkpoint is due."""
        with signals_deferred():  # so that a stop finds all workers with the same snapshot
            distributed.barrier()
            self.retention.end_iteration(iteration)
            self.snapshot = iteration, self.state()
        if self.retention.is_due(iteration, last):
            self.write()

    def state(self) -> dict[str, Any]:
        """Return a copy of the state of all parts. Raises CheckpointError for a value that could not be read back."""
        parts = {"kept": self.retention, **self.parts}
        return {name: copy_to_cpu(part.state_dict(), name) for name, part in parts.items()}

    def write(self) -> None:
        """Write the state at the end of the newest iteration, if it is not on disk yet. Raises OSError."""
        if self.snapshot is None or self.snapshot is self.written:
            return
        iteration, state = self.snapshot
        content = io.BytesIO()
        torch.save({"format": FORMAT, "iteration": iteration, "state": state}, content)
        name = checkpoint_name(iteration)
        claim(self.folder, name, f"{name}.tmp")
        write_durably(self.folder / name, content.getbuffer())
        claim(self.folder, EVER_WRITTEN, new=False)
        newest_two = [snapshot for snapshot in (self.written, self.snapshot) if snapshot]
        self.written = self.snapshot
        self.link_best()
        retained: set[int] = set()
        for iteration, state in newest_two:
            retained |= {iteration} | retained_beside(state)
        self.delete_all_but(retained)
        self.parts["replay"].keep([state["replay"] for _, state in newest_two])

    def delete_all_but(self, iterations: Iterable[int]) -> None:
        """Delete the checkpoints of other iterations, and files that a crash left half written."""
        retained = {BEST_FILE, *map(checkpoint_name, iterations)}
        unfinished = {f"{name}.tmp" for name in retained}
        existing = {name for name in owned_files(self.folder) or () if name.startswith("checkpoint-")}
        delete(self.folder, existing - retained - unfinished - {EVER_WRITTEN})

    def link_best(self) -> None:
        """Link BEST_FILE to the checkpoint that the newest one's state calls the best; delete it if there is none."""
        best = self.written[1].get("kept", {}).get("best") if self.written else None
        source = self.folder / checkpoint_name(best or 0)
        if not is_plain(source):
            delete(self.folder, [BEST_FILE, f"{BEST_FILE}.tmp"])
        elif best != self.linked:
            claim(self.folder, BEST_FILE, f"{BEST_FILE}.tmp")
            link_durably(source, self.folder / BEST_FILE)
        self.linked = best

    def restore(self) -> None:
        """Restore the newest usable checkpoint of an iteration that all data-parallel workers hold.

        If one of them has none yet, the run begins anew. Newer checkpoints that only some workers hold are deleted,
        because the resumed run repeats their iterations. Raises CheckpointError if there were checkpoints and none can
        be used.
        """
        paths = checkpoints(self.folder)
        owned = owned_files(self.folder)
        had_checkpoints = legacy_files(self.folder) if owned is None else EVER_WRITTEN in owned
        if had_checkpoints and not paths:
            advice = f"to start anew: {program.PROGRAM} --config {self.folder}/config.yml"
            raise CheckpointError(f"{self.folder}: its checkpoints are gone; {advice}")
        if owned is None:
            marker = [EVER_WRITTEN] if paths else []
            claim(self.folder, *legacy_files(self.folder), *marker, new=False)
        restored = 0  # iteration
        if distributed.all_workers(paths):
            self.snapshot = self.written = load_checkpoint(self.folder, self.load, together=True)
            restored = self.snapshot[0]
            self.move_aside([path for path in paths if (iteration_of(path) or 0) > restored], restored)
        else:
            delete(self.folder, [EVER_WRITTEN])
            self.parts["curves"].load_state_dict({})
            self.state()
        iterations = {iteration for iteration in map(iteration_of, paths) if iteration}
        up_to_restored = {iteration for iteration in iterations if iteration <= restored}
        self.delete_all_but(up_to_restored | distributed.common(iterations))
        self.link_best()

    def move_aside(self, paths: Iterable[Path], restored: int) -> None:
        """Rename those of `paths` that this run wrote. They are newer than the restored iteration.

        No later start may load them, even if they are readable, because their curves and steps are cut.
        """
        owned = owned_files(self.folder) or set()
        for path in paths:
            if path.name not in owned:
                continue
            candidates = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
            new_path = next(candidate for candidate in candidates if not os.path.lexists(candidate))
            path.rename(new_path)
            print(f"warning: {path.name} is now {new_path}; resuming from iteration {restored}", file=sys.stderr)
        with naming_errors(self.folder):
            sync_folder(self.folder)

    def load(self, state: Mapping[str, Any]) -> None:
        """Load the state of a checkpoint into all parts. Raises ValueError if it lacks one of them."""
        missing = self.parts.keys() - state.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        self.retention.load_state_dict(state.get("kept", {}))
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


@contextmanager
def saving_last_iteration(
    checkpointer: Checkpointer,
    folder: Path,
    is_new: bool,
    explained: tuple[type[BaseException], ...],
    resume: str,
) -> Iterator[None]:
    """On any exception of the block, write the checkpoint of the last finished iteration, then re-raise.

    folder: of the run. explained: exceptions that are printed elsewhere; after others, print the command `resume`.
    Delete the folder of a new run whose configuration or checkpoint is refused.
    """
    try:
        yield
    except BaseException as exception:
        try:
            with signals_ignored():
                checkpointer.write()
        except OSError as error:
            if str(error) != str(exception):
                print(f"error: the last iteration is not saved: {error}", file=sys.stderr)
        if distributed.rank() == 0 and not isinstance(exception, explained):
            print(f"stopped; to resume: {resume}", file=sys.stderr)
        is_refused = isinstance(exception, (ConfigError, CheckpointError))
        if is_new and is_refused and not checkpointer.written:
            shutil.rmtree(folder)
        raise


def load_networks(networks: Mapping[str, nn.Module], folder: Path, checkpoint: str = NEWEST) -> tuple[int, int]:
    """Load a checkpoint's weights into the networks that both have. Return its (iteration, env steps).

    checkpoint: "newest", "best" or an iteration. Raises CheckpointError, ConfigError if they differ in size, or
    NotFiniteError.
    """
    env_steps = 0

    def load(state: dict[str, Any]) -> None:
        nonlocal env_steps
        env_steps = state["trainer"]["env_steps"]
        weights = state["algorithm"]["networks"]
        names = sorted(networks.keys() & weights.keys())
        load_weights({name: networks[name] for name in names}, weights, str(folder))

    iteration = load_chosen(folder, checkpoint, load)
    check_weights(networks, str(folder))
    return iteration, env_steps
