"""Find, read and check the files of checkpoints."""

import io
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamer import distributed
from dreamer.errors import CheckpointError, ConfigError, DamagedError, EnvError, EnvFault
from dreamer.files import BEST, NEWEST, is_plain, naming_errors, open_nofollow
from dreamer.training.run_folder import first_folder

BEST_FILE = "checkpoint-best.pt"
FORMAT = 2  # raise it when a program would misread checkpoints of another version
PLAIN = (type(None), bool, int, float, complex, str, bytes)


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, or those in the folder of one of its workers, newest first."""
    paths = [path for path in first_folder(folder).iterdir() if iteration_of(path) and is_plain(path)]
    return sorted(paths, key=lambda path: iteration_of(path) or 0, reverse=True)


def chosen_checkpoint(folder: Path, which: str) -> Path:
    """Return a checkpoint's file. which: BEST or an iteration, as text. Raises CheckpointError if there is none."""
    rank_folder = first_folder(folder)
    name = ""
    if which == BEST:
        name = BEST_FILE
    elif which.isdecimal():
        name = checkpoint_name(int(which))
    if name and is_plain(rank_folder / name):
        return rank_folder / name
    available = [str(iteration_of(path)) for path in checkpoints(folder)]
    if is_plain(rank_folder / BEST_FILE):
        available.append(BEST)
    raise CheckpointError(f"{folder} has no checkpoint {which}; there is: {', '.join(available) or 'none'}")


def checkpoint_name(iteration: int) -> str:
    """Return the name of the file of an iteration's checkpoint."""
    return f"checkpoint-{iteration:06}.pt"


def iteration_of(path: Path) -> int | None:
    """Return the iteration, counted from 1, whose checkpoint this file is; None for other files."""
    match = re.fullmatch(r"checkpoint-(\d{6,})\.pt", path.name)
    return int(match[1]) if match else None


def load_checkpoint(
    folder: Path, use: Callable[[dict[str, Any]], object] = lambda state: None, together: bool = False
) -> tuple[int, dict[str, Any]]:
    """Return (iteration, state), on the CPU, of a run's newest usable checkpoint. Warn of newer ones that are not.

    use: called with the state. Its errors, other than ConfigError and an environment's, make a checkpoint unusable.
    together: whether all data-parallel workers must find the same iteration, each in its own folder. No code in a file
    is executed. Raises CheckpointError if there is none, and if the system cannot read one now.
    """
    paths = checkpoints(folder)
    iterations = set(map(iteration_of, paths))
    if together:
        iterations = distributed.common(iterations)
    for path in paths:
        iteration = iteration_of(path)
        if iteration is None or iteration not in iterations:
            continue
        state: dict[str, Any] = {}
        is_usable = True
        try:
            iteration, state = read_and_use(path, use)
        except DamagedError as error:
            print(f"warning: {error}; trying the one before", file=sys.stderr)
            is_usable = False
        if together:
            is_usable = distributed.all_workers(is_usable)
        if is_usable:
            return iteration, state
    reason = "no checkpoint can be used" if paths else "there is no checkpoint yet"
    raise CheckpointError(f"{folder}: {reason}")


def load_chosen(folder: Path, which: str, use: Callable[[dict[str, Any]], object]) -> int:
    """Call `use` with the state, on the CPU, of a checkpoint of a run, and return its iteration.

    which: NEWEST (that can be used), BEST (by eval/return_ema20) or an iteration, as text. Raises CheckpointError.
    """
    if which == NEWEST:
        return load_checkpoint(folder, use)[0]
    try:
        return read_and_use(chosen_checkpoint(folder, which), use)[0]
    except DamagedError as error:
        raise CheckpointError(f"{error}; take another --checkpoint") from None


def read_and_use(path: Path, use: Callable[[dict[str, Any]], object]) -> tuple[int, dict[str, Any]]:
    """Read a checkpoint, call `use` with its state, and return (iteration, state).

    Raises DamagedError for a file that cannot be used, CheckpointError for one that the system cannot read now.
    """
    try:
        iteration, state = read_checkpoint(path)
        use(state)
        return iteration, state
    except (ConfigError, CheckpointError, EnvError, EnvFault):
        raise
    except Exception as error:  # reading a damaged file may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split()).split(". ")[0][:300]
        if is_temporary(error):
            advice = "try again; to take the one before instead, move it away"
            raise CheckpointError(f"{path} cannot be used now ({reason}): {advice}") from None
        raise DamagedError(f"{path} cannot be used ({reason})") from None


def is_temporary(error: Exception) -> bool:
    """Return whether an error comes from the system or its memory, which may recover, and not from a file's content."""
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):  # torch's, of the CPU
        return True
    system_errors = OSError, MemoryError, torch.cuda.OutOfMemoryError
    return isinstance(error, system_errors) and not isinstance(error, FileNotFoundError)


def read_checkpoint(path: Path) -> tuple[int, dict[str, Any]]:
    """Return (iteration, state) of a file.

    Raises CheckpointError if another version of this program is needed, OSError if the system cannot read it, and
    anything else if it is damaged.
    """
    with naming_errors(path), open_nofollow(path, "rb") as file_on_disk:
        file = io.BytesIO(file_on_disk.read())  # read at once, so that errors from here on come from its content
    with zipfile.ZipFile(file) as archive:
        if archive.testzip() is not None:  # torch does not check them
            raise ValueError("a checksum is wrong")
    file.seek(0)
    content = torch.load(file, map_location="cpu", weights_only=True)
    number, iteration, state = content["format"], content["iteration"], content["state"]
    if number not in (1, FORMAT):
        raise CheckpointError(f"{path} has format {number}, this program reads {FORMAT}: use the one that wrote it")
    if path.name not in (BEST_FILE, checkpoint_name(iteration)):
        raise ValueError(f"it holds iteration {iteration}")
    if number == 1:
        state = from_format_1(state)
    return iteration, {"configuration": {}, "spaces": {}} | state


def from_format_1(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state of format 1, in which the algorithm kept the trainer's counters, in the current format."""
    counters = ("iteration", "env_steps", "evaluation_average")
    trainer = {name: state["algorithm"].pop(name) for name in counters}
    return state | {"trainer": trainer | {"updates_left": 0.0}}


def copy_to_cpu(state: Any, name: str = "state") -> Any:
    """Return a copy of nested dicts, lists and tuples of tensors and plain values; arrays become lists.

    Raises CheckpointError, which names the part, for a value that could be saved but never read back.
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
