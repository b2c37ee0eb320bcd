"""Files that a crash cannot spoil, and the record of those that a run may write over and delete: its own."""

import os
import re
from contextlib import contextmanager

RECORD = "files"  # in the folder of a run: their names, one a line
EVER_WRITTEN = "checkpoint-*.pt"  # stands in it from the first whole checkpoint on
NAMES = re.compile(
    r"checkpoint-(\d{6,}|\*)\.pt(\.tmp)?|replay/\d{8,}\.(steps|contexts)|versions\.yml"
    r"|events\.out\.tfevents\.[^/]+(\.\d+){2}(\.tmp)?"
)


@contextmanager
def naming(path):
    """Give an OSError of the block the name of this file."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(f"{path}: {error}") from None
        raise OSError(error.errno, error.strerror, str(path)) from None


def is_plain(path):
    """Whether this is a file, not a link to one."""
    return path.is_file() and not path.is_symlink()


def open_own(path, mode):
    """Open a file of a run itself: raise OSError, which names it, if it is a link."""
    with naming(path):
        return open(path, mode, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))


def write_durably(path, content):
    """Write bytes to a file, sync it, and only then give it its name: what had the name stays whole until then."""
    temporary = path.with_name(f"{path.name}.tmp")
    with naming(path):
        try:
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as file:  # never through a link
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder):
    """Bring the names in a folder to the disk: only then they outlast a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def own_files(folder):
    """The names, relative to the folder of a run, of the files that it has begun to write; None without a record."""
    record = folder / RECORD
    if not os.path.lexists(record):
        return None
    with naming(record), open_own(record, "rb") as file:
        return set(filter(NAMES.fullmatch, file.read().decode(errors="replace").splitlines()))


def lookalikes(folder):
    """The names of what a run without a record, of an older version, may have written."""
    paths = [*folder.glob("*"), *folder.glob("replay/*")]
    return set(filter(NAMES.fullmatch, (path.relative_to(folder).as_posix() for path in paths if is_plain(path))))


def claim(folder, *names, new=True):
    """Call files the run's own. To be called before they are made, else with new=False.

    Raises FileExistsError if something that is not the run's has one of the names.
    """
    own = own_files(folder) or set()
    unknown = sorted(set(names) - own)
    for name in unknown if new else ():
        if os.path.lexists(folder / name):
            raise FileExistsError(f"{folder / name} is not the run's own and in its way: move it, then --resume")
    if unknown or not names:
        _record(folder, own.union(names))


def delete(folder, names):
    """Delete those of the files that are the run's own."""
    if own := (own_files(folder) or set()) & set(names):
        for name in own:
            (folder / name).unlink(missing_ok=True)
        _record(folder, own_files(folder) - own)


def _record(folder, names):
    write_durably(folder / RECORD, "".join(f"{name}\n" for name in sorted(names)).encode())
