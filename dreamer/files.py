"""Write files so that a crash cannot damage them, and keep the list of the files of a run: no others are overwritten or
deleted."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

NEWEST, BEST = "newest", "best"  # which checkpoint of a run is meant; otherwise the number of an iteration
FILE_LIST = "files"  # in the folder of a run: the names of the files that it owns, one a line
EVER_WRITTEN = "checkpoint-*.pt"  # is in the list from the first complete checkpoint on
NAMES = re.compile(  # of all files that a run may own; another kind of file needs a pattern here
    r"checkpoint-(\d{6,}|\*|best)\.pt(\.tmp)?|replay/\d{8,}\.(steps|contexts)|versions\.yml"
    r"|metrics\.jsonl(\.tmp)?|(wandb|trackio)\.id(\.tmp)?"
    r"|events\.out\.tfevents\.[^/]+(\.\d+){2}(\.tmp)?"
)


@contextmanager
def naming_errors(path: str | Path) -> Iterator[None]:
    """Add the name of this file to an OSError that the block raises."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(f"{path}: {error}") from None
        raise OSError(error.errno, error.strerror, str(path)) from None


def is_plain(path: Path) -> bool:
    """Return whether a path is a file, and not a link to one."""
    return path.is_file() and not path.is_symlink()


def open_nofollow(path: Path, mode: str) -> IO[Any]:
    """Open a run's own file. Raises OSError, which names it, if it is a link."""
    nofollow = getattr(os, "O_NOFOLLOW", 0)  # unknown to Windows
    with naming_errors(path):
        return open(path, mode, opener=lambda name, flags: os.open(name, flags | nofollow, 0o666))


def write_durably(path: Path, content: bytes | memoryview) -> None:
    """Write bytes to a file under another name, sync it, and only then rename it: until then an older file of this name
    stays complete. Raises OSError, which names the file."""
    temporary = path.with_name(f"{path.name}.tmp")
    with naming_errors(path):
        try:
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as file:  # "x": never through a link
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def link_durably(source: Path, path: Path) -> None:
    """Link a file to a second name, replacing a file of that name; copy it where the file system has no hard links.

    Raises OSError, which names the file.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with naming_errors(path):
        temporary.unlink(missing_ok=True)
        if path.exists() and path.samefile(source):
            return
        try:
            os.link(source, temporary)
        except OSError:
            write_durably(path, source.read_bytes())
            return
        temporary.replace(path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk; without this a crash of the machine may lose them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def owned_files(folder: Path) -> set[str] | None:
    """Return the names of a run's own files, relative to its folder; None if there is no list of them."""
    file_list = folder / FILE_LIST
    if not os.path.lexists(file_list):
        return None
    with naming_errors(file_list), open_nofollow(file_list, "rb") as file:
        return set(filter(NAMES.fullmatch, file.read().decode(errors="replace").splitlines()))


def legacy_files(folder: Path) -> set[str]:
    """Return the names of files that a run of an older version, without a list, may have written."""
    names = set()
    for path in [*folder.glob("*"), *folder.glob("replay/*")]:
        name = path.relative_to(folder).as_posix()
        if is_plain(path) and NAMES.fullmatch(name):
            names.add(name)
    return names


def claim(folder: Path, *names: str, new: bool = True) -> None:
    """Add files to a run's own. Call it before they are created, or else with new=False.

    Raises FileExistsError if a new file's name is taken by something that is not the run's.
    """
    unknown = [name for name in names if not NAMES.fullmatch(name)]
    assert not unknown, f"files.NAMES has no pattern for {unknown}"
    owned = owned_files(folder) or set()
    not_owned = sorted(set(names) - owned)
    if new:
        for name in not_owned:
            if os.path.lexists(folder / name):
                raise FileExistsError(f"{folder / name} is not the run's own and in its way: move it, then --resume")
    if not_owned or not names:
        _write_list(folder, owned.union(names))


def delete(folder: Path, names: Iterable[str]) -> None:
    """Delete files, but only those that are the run's own."""
    owned = owned_files(folder) or set()
    deleted = owned & set(names)
    if not deleted:
        return
    for name in deleted:
        (folder / name).unlink(missing_ok=True)
    _write_list(folder, owned - deleted)


def _write_list(folder: Path, names: Iterable[str]) -> None:
    write_durably(folder / FILE_LIST, "".join(f"{name}\n" for name in sorted(names)).encode())
