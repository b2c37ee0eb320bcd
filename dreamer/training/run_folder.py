"""Make, find and lock the folder of a run: runs/<date>_<time>_seed-<seed>_<name>, or one that the user named.

In a run of several data-parallel workers, it holds a folder rank-<number> for each.
"""

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dreamer import distributed
from dreamer.config.load import CONFIGURATION, Config, check_changes, flatten
from dreamer.config.yaml_files import read_mapping
from dreamer.errors import ConfigError
from dreamer.files import is_plain, naming_errors, write_durably
from dreamer.training.run_links import RANK, check_links
from dreamer.training.versions import FILE as VERSIONS
from dreamer.training.versions import read_versions

ROOT = Path("runs")
TIME = "%Y-%m-%d_%H-%M-%S"
IN_USE = "{} is in use by another process"
PATIENCE = 1  # seconds to wait for a run that another process holds


def run_name(operation: Config) -> str:
    """Return the name of a run's folder without its time, from the section "operation" of its configuration."""
    return f"seed-{operation.seed}_{operation.log_dir}"


def make_run_folder(name: str, configuration: str, root: Path = ROOT) -> Path:
    """Make and return the folder `root`/<date>_<time>_<name>, with a number appended if another run has that name.

    configuration: YAML text, written into the folder before it gets its name. Raises OSError.
    """
    stem = time.strftime(f"{TIME}_{name}")
    with _prepared(root / stem, configuration) as prepared:
        for attempt in range(1, 1000):
            folder = root / (stem if attempt == 1 else f"{stem}_{attempt}")
            if not folder.exists():
                with suppress(OSError):  # another run was faster
                    return prepared.rename(folder)
    raise FileExistsError(f"{root}/{stem}: the folder exists, and so do 998 with a number behind it; delete some")


def make_named_folder(folder: Path, configuration: str) -> Path:
    """Make and return a folder that the user named. It may exist if it is empty. Raises ConfigError, OSError."""
    with _prepared(folder, configuration) as prepared:
        try:
            return prepared.rename(folder)
        except OSError:
            if is_run(folder):  # another process was faster
                raise ConfigError(IN_USE.format(folder)) from None
            raise


@contextmanager
def _prepared(folder: Path, configuration: str) -> Iterator[Path]:
    """Yield a new folder beside `folder` that holds a run's configuration and a folder for each of several workers.

    The block must rename it; otherwise it is deleted at the end.
    """
    remove_leftovers(folder.parent)
    prepared = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}")
    prepared.mkdir(parents=True, exist_ok=True)  # a killed process with the same id may have left it
    descriptor = os.open(prepared, os.O_RDONLY)
    try:
        _try_lock(descriptor)  # so that `remove_leftovers` leaves it while this process lives
        save_configuration(prepared, configuration)
        for rank in range(distributed.count()):
            rank_folder(prepared, rank, distributed.count()).mkdir(exist_ok=True)
        yield prepared
    finally:
        os.close(descriptor)
        shutil.rmtree(prepared, ignore_errors=True)


def remove_leftovers(root: Path) -> None:
    """Delete the folders in `root` that `_prepared` made in processes of this machine which were then killed."""
    pattern = re.compile(rf"\..+\.{re.escape(socket.gethostname())}\.\d+")
    leftovers = [path for path in root.glob(".*") if pattern.fullmatch(path.name)]
    for path in leftovers:
        with suppress(OSError):  # it belongs to another user, is no folder, or another process was faster
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if _try_lock(descriptor):
                    _remove_prepared(path)
            finally:
                os.close(descriptor)


def _remove_prepared(folder: Path) -> None:
    """Delete a folder if it holds nothing but what `_prepared` makes."""
    files = {CONFIGURATION, f"{CONFIGURATION}.tmp"}
    paths = list(folder.iterdir())
    if all(path.name in files or RANK.fullmatch(path.name) for path in paths):
        for path in paths:
            if path.name in files:
                path.unlink()
            else:
                path.rmdir()
        folder.rmdir()


def is_run(folder: Path) -> bool:
    """Return whether this is the folder of a run, even of one that has only begun."""
    return (folder / CONFIGURATION).is_file()


def named_folder(name: str, config: Config) -> Path:
    """Return the folder that the user named for a run, absolute and without links.

    Raises ConfigError if it holds something else, or a run that cannot be resumed with this configuration.
    """
    folder = Path(name).resolve()
    is_empty_folder = folder.is_dir() and not any(folder.iterdir())
    if is_run(folder):
        check_links(folder)
        check_changes(folder / CONFIGURATION, config)
    elif folder.exists() and not is_empty_folder:
        shown = name if name.isprintable() else repr(name)
        found = f"{shown} is neither the folder of a run, which has a {CONFIGURATION}, nor empty"
        raise ConfigError(f"{found}; name another")
    return folder


def rank_folder(folder: Path, rank: int, count: int) -> Path:
    """Return where one of `count` workers keeps its replay and checkpoints: the run's folder if it is the only one."""
    return folder / f"rank-{rank}" if count > 1 else folder


def folder_of_rank(folder: Path) -> Path:
    """Return the folder of this worker's replay and checkpoints."""
    return rank_folder(folder, distributed.rank(), distributed.count())


def first_folder(folder: Path) -> Path:
    """Return the folder of the first worker's replay and checkpoints."""
    return rank_folder(folder, 0, ranks_of(folder))


def ranks_of(folder: Path) -> int:
    """Return the number of data-parallel workers that a run began with."""
    return sum(path.is_dir() and bool(RANK.fullmatch(path.name)) for path in Path(folder).glob("rank-*")) or 1


def check_ranks(folder: Path) -> None:
    """Raise ConfigError if a run began with another number of data-parallel workers."""
    ranks = ranks_of(folder)
    if ranks != distributed.count():
        advice = f"torchrun --nproc-per-node {ranks}" if ranks > 1 else "call it without torchrun"
        raise ConfigError(f"{folder} began with {ranks} of torchrun's processes, found {distributed.count()}; {advice}")


def find_run(name: str | Path) -> Path:
    """Return the absolute folder of an existing run. name: a path, or "latest": the run that started last.

    Raises ConfigError.
    """
    runs = all_runs()
    if name == "latest":
        if not runs:
            raise ConfigError(f"there is no run in {ROOT.resolve()}; train one, or name a folder")
        name = runs[-1]
    if not name or not (Path(name) / CONFIGURATION).is_file():
        latest = f"; the latest is {runs[-1]}" if runs else ""
        shown = name if name and str(name).isprintable() else repr(name)
        raise ConfigError(f"{shown} is not the folder of a run: it has no {CONFIGURATION}{latest}")
    check_links(Path(name).absolute())
    return Path(name).absolute()


def all_runs(root: Path = ROOT) -> list[Path]:
    """Return the folders of the runs in `root`, in the order in which they started."""
    return sorted((path.parent for path in root.glob(f"[!.]*/{CONFIGURATION}") if is_plain(path)), key=_by_start)


def _by_start(folder: Path) -> tuple[str, list[int | str]]:
    """Return a sort key: the start of a run, then its name with numbers as such, so that …_9 comes before …_22."""
    numbers = [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", folder.name)]
    return started(folder), numbers


def started(folder: Path) -> str:
    """Return when a run started, as digits from the year to the second: by its name, else by its versions.yml."""
    match = re.match(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", folder.name)
    entries = [] if match else read_versions(folder / VERSIONS)
    if match:
        date = match[0]
    elif entries and "started" in entries[0]:
        date = str(entries[0]["started"])
    else:
        date = time.strftime(TIME, time.localtime((folder / CONFIGURATION).stat().st_mtime))
    return re.sub(r"\D", "", date)


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Lock a folder in the block, or until the process ends.

    Raises ConfigError if another process holds the lock for PATIENCE seconds; `is_locked` holds it for less.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    deadline = time.monotonic() + PATIENCE
    try:
        with naming_errors(folder):
            while not _try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise ConfigError(IN_USE.format(folder))
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Return whether a run is running: whether another process has locked its folder."""
    descriptor = os.open(first_folder(folder), os.O_RDONLY)
    try:
        return not _try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, shared: bool = False) -> bool:
    """Try to lock a file without waiting, and return whether it worked."""
    import fcntl  # late: on Windows, where an agent can be loaded, there is none

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def save_configuration(folder: Path, text: str) -> None:
    """Write the complete configuration, YAML text, into the folder of a run."""
    write_durably(folder / CONFIGURATION, text.encode())


def read_settings(folder: Path) -> dict[str, object]:
    """Return the configuration in the folder of a run, {dotted key: value}; {} if it cannot be read."""
    try:
        return flatten(read_mapping(folder / CONFIGURATION))
    except ConfigError:
        return {}
