"""The folder of a run: runs/<date>_<time>_seed-<seed>_<name>."""

import fcntl
import os
import re
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from dreamer.config import CONFIGURATION, ConfigError
from dreamer.files import write_durably

ROOT = Path("runs")


def run_name(operation):
    """What the name of a run's folder says of it beside the time; operation: that section of its configuration."""
    return f"seed-{operation.seed}_{operation.log_dir}"


def make_run_folder(name, configuration, root=ROOT):
    """Make and return `root`/<date>_<time>_<name>, with a number behind it if another run took that.

    configuration: YAML text, which it holds from the moment it is there. Raises OSError.
    """
    stem = time.strftime(f"%Y-%m-%d_%H-%M-%S_{name}")
    unnamed = root / f".{stem}.{os.getpid()}"
    unnamed.mkdir(parents=True)
    try:
        save_configuration(unnamed, configuration)
        for attempt in range(1, 1000):
            folder = root / (stem if attempt == 1 else f"{stem}_{attempt}")
            if not folder.exists():
                with suppress(OSError):  # another run was faster
                    return unnamed.rename(folder)
        raise FileExistsError(f"{root}/{stem} and a thousand like it exist")
    finally:
        shutil.rmtree(unnamed, ignore_errors=True)


def find_run(name, root=ROOT):
    """The folder of a run that is there already: its path, made absolute, or "latest" for the one that started last."""
    runs = all_runs(root)
    if name == "latest":
        if not runs:
            raise ConfigError(f"there is no run in {root.resolve()}")
        return runs[-1].absolute()
    if not name or not (Path(name) / CONFIGURATION).is_file():
        known = f"; the latest is {runs[-1]}" if runs else ""
        shown = name if name.isprintable() else repr(name)
        raise ConfigError(f"{shown} is not the folder of a run: it has no {CONFIGURATION}{known}")
    return Path(name).absolute()


def all_runs(root=ROOT):
    """The folders of the runs in `root`, in the order in which they started."""
    return sorted((path.parent for path in root.glob(f"[!.]*/{CONFIGURATION}")), key=_by_start)


def _by_start(folder):
    """To sort by: the numbers in the name as numbers, so …_9 comes before …_22."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", folder.name)]


@contextmanager
def lock_run(folder):
    """Lock the folder itself, at the latest until the process ends. Raises ConfigError if another one holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{folder} is in use by another process") from None
        yield
    finally:
        os.close(descriptor)


def is_locked(folder):
    """Whether another process holds the folder of a run: whether it is running."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def save_configuration(folder, text):
    """Keep the resolved configuration, YAML text, with the run."""
    write_durably(folder / CONFIGURATION, text.encode())
