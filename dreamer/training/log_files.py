"""Append to files of curves in a run's folder, and cut them back when the run resumes from a checkpoint."""

import os
import sys
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from dreamer.files import claim, delete, naming_errors, open_nofollow, owned_files, write_durably


class LogFiles:
    """Appends to a file of this process without buffer or thread, so that a full disk raises OSError in the caller."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checksums: dict[str, int] = {}  # of the whole content of each file of the run, by name

    def new_name(self) -> str:
        """Return the name of the file of this process, which a pattern of `files.NAMES` must match.

        An earlier process of the run may have written the same file.
        """
        raise NotImplementedError

    def files(self) -> list[Path]:
        """Return the files of this kind in the folder."""
        raise NotImplementedError

    def undamaged(self, content: bytes) -> bytes:
        """Return the content of a file without its damaged parts."""
        raise NotImplementedError

    @cached_property
    def file(self) -> IO[Any]:
        """The file of this process, made for the first entry, so that a run that cannot start leaves no file."""
        name = self.new_name()
        claim(self.folder, name)
        return open_nofollow(self.folder / name, "ab")

    def append(self, content: bytes) -> None:
        """Write bytes to the end of the file."""
        name = os.path.basename(self.file.name)
        with naming_errors(self.file.name):
            self.file.write(content)
            self.file.flush()
        self.checksums[name] = zlib.crc32(content, self.checksums.get(name, 0))

    def state_dict(self) -> dict[str, Any]:
        """Return {name of a file: its size in bytes} and, under "checksums", {name: checksum}.

        All entries are on the disk when it returns.
        """
        if "file" in vars(self):
            with naming_errors(self.file.name):
                os.fsync(self.file.fileno())
        sizes: dict[str, Any] = {path.name: path.stat().st_size for path in self.owned_files()}
        return sizes | {"checksums": {name: self.checksums[name] for name in sizes}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut the run's own files back to a state, so that no entry appears twice, and remove damaged parts.

        Call it before anything is written.
        """
        state = dict(state)
        checksums = state.pop("checksums", {})  # an older state has none
        owned = self.owned_files()
        delete(self.folder, [path.name for path in owned if path.name not in state])
        for name in state.keys() - {path.name for path in owned}:
            print(f"warning: {self.folder / name} is gone: the curves have a gap", file=sys.stderr)
        for path in owned:
            if path.name not in state:
                continue
            content = self.cut(path, state[path.name])
            if zlib.crc32(content) != checksums.get(path.name):
                content = self.mend(path, content)
            self.checksums[path.name] = zlib.crc32(content)

    def cut(self, path: Path, size: int) -> bytes:
        """Cut a file to a size in bytes and return its content."""
        with naming_errors(path), open_nofollow(path, "r+b") as file:
            if os.fstat(file.fileno()).st_size < size:
                print(f"warning: {path} is shorter than it was: the curves have a gap", file=sys.stderr)
            else:
                file.truncate(size)
            return file.read()

    def mend(self, path: Path, content: bytes) -> bytes:
        """Remove the damaged parts of a file with this content, and return its new content."""
        undamaged = self.undamaged(content)
        damaged_bytes = len(content) - len(undamaged)
        if damaged_bytes:
            temporary = f"{path.name}.tmp"
            claim(self.folder, temporary)
            write_durably(path, undamaged)
            delete(self.folder, [temporary])
            reason = f"{damaged_bytes} bytes were damaged and are cut out: the curves have a gap"
            print(f"warning: {path}: {reason}", file=sys.stderr)
        return undamaged

    def owned_files(self) -> list[Path]:
        """Return the files of this kind that the run has written itself."""
        names = owned_files(self.folder) or ()
        return [path for path in self.files() if path.name in names]

    def close(self) -> None:
        """Close the file, if there is one."""
        if "file" in vars(self):
            with naming_errors(self.file.name):
                self.file.close()
