"""The folder of a run: runs/<date>_<time>_seed-<seed>_<name>, or one that the user named; and each rank's in it."""

import fcntl
import os
import re
import shutil
import socket
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from dreamer import distributed
from dreamer.config.load import CONFIGURATION, check_changes, flatten
from dreamer.config.yaml_files import read_mapping
from dreamer.errors import ConfigError
from dreamer.files import RECORD, is_plain, lookalikes, naming, own_files, write_durably
from dreamer.training.versions import FILE as VERSIONS
from dreamer.training.versions import read_versions

ROOT = Path("runs")
RANK = re.compile(r"rank-\d+")
REPLAY = "replay"
TIME = "%Y-%m-%d_%H-%M-%S"
IN_USE = "{} is in use by another process"
PATIENCE = 1  # second until a run that another process holds is given up


def run_name(operation):
    """What the name of a run's folder says of it beside the time; operation: that section of its configuration."""
    return f"seed-{operation.seed}_{operation.log_dir}"


def make_run_folder(name, configuration, root=ROOT):
    """Make and return `root`/<date>_<time>_<name>, with a number behind it if another run took that.

    configuration: YAML text, which it holds from the moment it is there. Raises OSError.
    """
    stem = time.strftime(f"{TIME}_{name}")
    with _prepared(root / stem, configuration) as prepared:
        for attempt in range(1, 1000):
            folder = root / (stem if attempt == 1 else f"{stem}_{attempt}")
            if not folder.exists():
                with suppress(OSError):  # another run was faster
                    return prepared.rename(folder)
    raise FileExistsError(f"{root}/{stem} and a thousand like it exist")


def make_named_folder(folder, configuration):
    """The same in a folder whose name the user gave, which may be there if it is empty. Raises ConfigError, OSError."""
    with _prepared(folder, configuration) as prepared:
        try:
            return prepared.rename(folder)
        except OSError:
            if is_run(folder):  # another process was faster
                raise ConfigError(IN_USE.format(folder)) from None
            raise


@contextmanager
def _prepared(folder, configuration):
    """A folder beside `folder` that holds a run's configuration, and a folder for each of several ranks. It is to be
    renamed, and gone after the block if it was not."""
    remove_leftovers(folder.parent)
    prepared = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}")
    prepared.mkdir(parents=True, exist_ok=True)  # there if a process of this number was killed here
    descriptor = os.open(prepared, os.O_RDONLY)
    try:
        _try_lock(descriptor, fcntl.LOCK_EX)  # until it ends or is killed: see `remove_leftovers`
        save_configuration(prepared, configuration)
        for rank in range(distributed.count()):
            rank_folder(prepared, rank, distributed.count()).mkdir(exist_ok=True)
        yield prepared
    finally:
        os.close(descriptor)
        shutil.rmtree(prepared, ignore_errors=True)


def remove_leftovers(root):
    """Delete what processes of this machine prepared in `root` for their runs and, killed, could not give its name."""
    pattern = re.compile(rf"\..+\.{re.escape(socket.gethostname())}\.\d+")
    found = (path for path in root.glob(".*") if pattern.fullmatch(path.name))
    for path in found:
        with suppress(OSError):  # it is not ours, not a folder, or another process was faster
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if _try_lock(descriptor, fcntl.LOCK_EX):
                    _remove_prepared(path)
            finally:
                os.close(descriptor)


def _remove_prepared(folder):
    """Delete a folder that holds nothing but what `_prepared` makes."""
    files = {CONFIGURATION, f"{CONFIGURATION}.tmp"}
    inside = list(folder.iterdir())
    if all(path.name in files or RANK.fullmatch(path.name) for path in inside):
        for path in inside:
            path.unlink() if path.name in files else path.rmdir()
        folder.rmdir()


def is_run(folder):
    """Whether this is the folder of a run, which may only have been begun."""
    return (folder / CONFIGURATION).is_file()


def named_folder(name, config):
    """The folder that the user named for a run, absolute and without links.

    Raises ConfigError if it holds something else, or a run that cannot go on with this configuration.
    """
    folder = Path(name).resolve()
    if is_run(folder):
        check_links(folder)
        check_changes(folder / CONFIGURATION, config)
    elif folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        shown = name if name.isprintable() else repr(name)
        raise ConfigError(f"{shown} is neither the folder of a run, which has a {CONFIGURATION}, nor empty")
    return folder


def check_links(folder):
    """Raise ConfigError if something of a run leads out of its folder or is no file: a stranger may have made it."""
    for place in (folder, *(path for path in folder.glob("rank-*") if RANK.fullmatch(path.name))):
        folders = {place, place / REPLAY} - {folder}  # the run's own folder is what the user named
        _check_kind(folders, Path.is_dir, "folder")
        _check_kind({place / name for name in (CONFIGURATION, VERSIONS, RECORD)}, Path.is_file, "file")
        own = own_files(place)
        _check_kind({place / name for name in (lookalikes(place) if own is None else own)}, Path.is_file, "file")


def _check_kind(paths, is_right, kind):
    for path in sorted(paths):
        if path.is_symlink():
            raise ConfigError(f"{path} is a link: a run's files lie in its folder and nowhere else; it is not followed")
        if os.path.lexists(path) and not is_right(path):
            raise ConfigError(f"{path} is in the way of the run: it is not a {kind}")


def rank_folder(folder, rank, count):
    """Where one of several ranks keeps its replay and its checkpoints; a process that is alone, in the run's folder."""
    return folder / f"rank-{rank}" if count > 1 else folder


def own_folder(folder):
    """The folder of this rank's replay and checkpoints."""
    return rank_folder(folder, distributed.rank(), distributed.count())


def first_folder(folder):
    """That of rank 0, for one that only reads."""
    return rank_folder(folder, 0, ranks_of(folder))


def ranks_of(folder):
    """How many ranks a run was begun with."""
    return sum(path.is_dir() and bool(RANK.fullmatch(path.name)) for path in Path(folder).glob("rank-*")) or 1


def check_ranks(folder):
    """Raise ConfigError if a run was begun with another number of ranks."""
    if (begun := ranks_of(folder)) != distributed.count():
        advice = f"torchrun --nproc-per-node {begun}" if begun > 1 else "call it without torchrun"
        raise ConfigError(
            f"{folder} was begun with {begun} ranks and cannot go on with {distributed.count()}; {advice}"
        )


def find_run(name):
    """The folder of a run that is there already: its path, made absolute, or "latest" for the one that started last."""
    runs = all_runs()
    if name == "latest":
        if not runs:
            raise ConfigError(f"there is no run in {ROOT.resolve()}")
        name = runs[-1]
    if not name or not (Path(name) / CONFIGURATION).is_file():
        known = f"; the latest is {runs[-1]}" if runs else ""
        shown = name if name and name.isprintable() else repr(name)
        raise ConfigError(f"{shown} is not the folder of a run: it has no {CONFIGURATION}{known}")
    check_links(Path(name).absolute())
    return Path(name).absolute()


def all_runs(root=ROOT):
    """The folders of the runs in `root`, in the order in which they started."""
    return sorted((path.parent for path in root.glob(f"[!.]*/{CONFIGURATION}") if is_plain(path)), key=_by_start)


def _by_start(folder):
    """To sort by: when it started, and the numbers in its name as numbers, so …_9 comes before …_22."""
    numbers = [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", folder.name)]
    return started(folder), numbers


def started(folder):
    """When a run did, by its name or else by what was kept with it, as digits from the year to the second."""
    if dated := re.match(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", folder.name):
        when = dated[0]
    elif entries := read_versions(folder / VERSIONS):
        when = str(entries[0].get("started"))
    else:
        when = time.strftime(TIME, time.localtime((folder / CONFIGURATION).stat().st_mtime))
    return re.sub(r"\D", "", when)


@contextmanager
def lock_run(folder):
    """Lock the folder itself, at the latest until the process ends. Raises ConfigError if another one holds it for
    longer than `is_locked` does."""
    descriptor, deadline = os.open(folder, os.O_RDONLY), time.monotonic() + PATIENCE
    try:
        with naming(folder):
            while not _try_lock(descriptor, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise ConfigError(IN_USE.format(folder))
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def is_locked(folder):
    """Whether another process holds the folder of a run: whether it is running."""
    descriptor = os.open(first_folder(folder), os.O_RDONLY)
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try_lock(descriptor, kind):
    """Lock a file if that is possible at once. Returns whether it was."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def save_configuration(folder, text):
    """Keep the resolved configuration, YAML text, with the run."""
    write_durably(folder / CONFIGURATION, text.encode())


def read_settings(folder: Path) -> dict[str, object]:
    """Return the configuration in the folder of a run, {dotted key: value}; {} if it cannot be read."""
    try:
        return flatten(read_mapping(folder / CONFIGURATION))
    except ConfigError:
        return {}
