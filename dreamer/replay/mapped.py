"""Map numbered files of one size into memory. The replay consists of such files."""

import errno
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike

from dreamer.errors import DamagedError
from dreamer.files import claim, delete, naming_errors, open_nofollow, owned_files

CHUNK = 2**20  # bytes that are read at once


class MappedFiles(dict[int, np.ndarray]):
    """Maps a number to the rows of the file `<number>.<kind>`, an array whose memory is the file itself.

    Memory is the system's page cache, and no descriptor stays open.
    """

    def __init__(self, folder: Path, kind: str, rows: int, dtype: np.dtype):
        """folder: a subfolder of a run's folder; the run owns the files. rows: in each file. dtype: of a row."""
        super().__init__()
        self.folder, self.kind, self.rows, self.dtype = folder, kind, rows, np.dtype(dtype)
        self.size = rows * self.dtype.itemsize  # bytes

    def create(self, number: int) -> None:
        """Create a file with space for all its rows. Replaces a file of the run. Raises OSError."""
        path = self.path(number)
        claim(self.folder.parent, f"{self.folder.name}/{path.name}")
        try:
            self._reserve(path, "wb")
            self._map(path, number)
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def open(self, numbers: Iterable[int]) -> None:
        """Map exactly the files with these numbers. Raises DamagedError for files that are missing or have the wrong
        size, OSError for files that cannot be read now."""
        self.clear()
        for number in numbers:
            path = self.path(number)
            if not path.is_file() or self._read_size(path) != self.size:
                raise DamagedError(f"{path}: this part of the replay is missing or damaged")
            self._map(path, number)

    def open_read_only(self, numbers: Iterable[int]) -> None:
        """Map these files for reading only, except missing and incomplete ones: another process may write them."""
        self.clear()
        for number in numbers:
            path = self.path(number)
            if path.is_file() and path.stat().st_size == self.size:
                self[number] = np.memmap(path, self.dtype, "r", shape=(self.rows,))

    def check(self, number: int, found: Any, expected: Any) -> None:
        """Raise DamagedError if the checksum found of a file's content is not the expected one."""
        if found != expected:
            raise DamagedError(f"{self.path(number)}: its checksum is wrong, this part of the replay is damaged")

    def fill_holes(self, number: int) -> None:
        """Reserve the disk space of a copied file, which may have holes, before it is written to. Raises OSError."""
        self._reserve(self.path(number), "r+b")

    def sync(self, number: int) -> None:
        """Write a file's content to the disk and wait for it. Raises OSError."""
        path = self.path(number)
        with naming_errors(path), open_nofollow(path, "rb") as file:
            os.fsync(file.fileno())  # includes what was written through the mapping

    def delete_all_but(self, numbers: Collection[int]) -> None:
        """Delete all files of this kind with other numbers, mapped or not."""
        for number in self.keys() - set(numbers):
            del self[number]  # a deleted file takes disk space until it is unmapped
        unneeded = []
        for name in owned_files(self.folder.parent) or ():
            path = Path(name)
            if path.suffix == f".{self.kind}" and int(path.stem) not in numbers:
                unneeded.append(name)
        delete(self.folder.parent, unneeded)

    def _reserve(self, path: Path, mode: str) -> None:
        """Reserve space for the whole file: writing to a mapped file on a full disk kills the process silently."""
        with naming_errors(path), open_nofollow(path, mode) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, self.size)
            else:
                file.truncate(self.size)

    def _read_size(self, path: Path) -> int:
        """Read a whole file and return its size: reading a mapped file from a bad disk kills the process silently."""
        size = 0
        with naming_errors(path), open_nofollow(path, "rb") as file:
            while chunk := file.read(CHUNK):
                size += len(chunk)
        return size

    def _map(self, path: Path, number: int) -> None:
        try:
            content = torch.from_file(str(path), shared=True, size=self.size, dtype=torch.uint8).numpy()
        except RuntimeError as error:  # torch raises it in place of the system's error, whose number ends its text
            match = re.search(r"\((\d+)\)\W*$", str(error).splitlines()[0])
            number_of_error = int(match[1]) if match else errno.EIO
            raise OSError(number_of_error, os.strerror(number_of_error), str(path)) from None
        self[number] = content.view(self.dtype.base).reshape(self.rows, *self.dtype.shape)

    def path(self, number: int) -> Path:
        """Return the path of a file."""
        return self.folder / f"{number:08}.{self.kind}"


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike, pin_memory: bool = False) -> np.ndarray:
    """Return an uninitialized array in torch's memory, which is aligned: alignment may change a product's last bits."""
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=pin_memory).numpy()
