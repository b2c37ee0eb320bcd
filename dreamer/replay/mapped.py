"""Numbered files of one size, mapped into memory: what the replay consists of."""

import errno
import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dreamer.errors import DamagedError
from dreamer.files import claim, delete, naming, open_own, own_files

CHUNK = 2**20  # bytes that are read at once


class MappedFiles(dict):
    """Number → the rows of the file `<number>.<kind>`, an array that stands for the file itself.

    folder: in that of a run, whose own the files are. dtype: of a row. Memory is the system's page cache, and no
    descriptor stays open.
    """

    def __init__(self, folder, kind, rows, dtype):
        super().__init__()
        self.folder, self.kind, self.rows, self.dtype = folder, kind, rows, np.dtype(dtype)
        self.size = rows * self.dtype.itemsize  # bytes

    def create(self, number):
        """A file with space for all its rows, in the place of one that the run may have there. Raises OSError."""
        path = self.path(number)
        claim(self.folder.parent, f"{self.folder.name}/{path.name}")
        try:
            self._reserve(path, "wb")
            self._map(path, number)
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def open(self, numbers):
        """Exactly the files with these numbers. Raises DamagedError, and OSError for what cannot be read now."""
        self.clear()
        for number in numbers:
            path = self.path(number)
            if not path.is_file() or self._readable(path) != self.size:
                raise DamagedError(f"{path}: this part of the replay is missing or damaged")
            self._map(path, number)

    def check(self, number, found, expected):
        """Raise DamagedError if a checksum of what stands in a file is not the expected one."""
        if found != expected:
            raise DamagedError(f"{self.path(number)}: its checksum is wrong, this part of the replay is damaged")

    def fill_holes(self, number):
        """Those of a copied file, before it is written to. Raises OSError."""
        self._reserve(self.path(number), "r+b")

    def sync(self, number):
        """Bring it to the disk."""
        path = self.path(number)
        with naming(path), open_own(path, "rb") as file:
            os.fsync(file.fileno())  # of what is mapped, too

    def delete_all_but(self, numbers):
        """Also those that were never opened."""
        for number in self.keys() - numbers:
            del self[number]  # it takes no disk only once it is unmapped
        own = (Path(name) for name in own_files(self.folder.parent) or ())
        old = (path for path in own if path.suffix == f".{self.kind}" and int(path.stem) not in numbers)
        delete(self.folder.parent, map(str, old))

    def _reserve(self, path, mode):
        """Space for the whole file: on a full disk, writing to a mapped one kills the process without a word."""
        with naming(path), open_own(path, mode) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, self.size)
            else:
                file.truncate(self.size)

    def _readable(self, path):
        """Read a whole file, for its size. A mapped one that cannot be read kills the process without a word."""
        with naming(path), open_own(path, "rb") as file:
            return sum(map(len, iter(partial(file.read, CHUNK), b"")))

    def _map(self, path, number):
        try:
            content = torch.from_file(str(path), shared=True, size=self.size, dtype=torch.uint8).numpy()
        except RuntimeError as error:  # in place of the system's error, whose number stands at its end
            found = re.search(r"\((\d+)\)\W*$", str(error).splitlines()[0])
            reason = int(found[1]) if found else errno.EIO
            raise OSError(reason, os.strerror(reason), str(path)) from None
        self[number] = content.view(self.dtype.base).reshape(self.rows, *self.dtype.shape)

    def path(self, number):
        return self.folder / f"{number:08}.{self.kind}"


def aligned_empty(shape, dtype, pin_memory=False):
    """An empty array in torch's memory, which is aligned: see `Policy.actions`."""
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=pin_memory).numpy()
