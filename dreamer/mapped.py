"""Numbered files of one size, mapped into memory: what the replay consists of."""

import os
from pathlib import Path

import numpy as np
import torch

from dreamer.files import claim, delete, own_files


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
        except OSError as error:
            path.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from None
        self._map(path, number)

    def open(self, numbers):
        """Exactly the files with these numbers. Raises FileNotFoundError."""
        self.clear()
        for number in numbers:
            path = self.path(number)
            if not path.is_file() or path.stat().st_size != self.size:
                raise FileNotFoundError(f"{path}: this part of the replay is missing or damaged")
            self._map(path, number)

    def fill_holes(self, number):
        """Those of a copied file, before it is written to. Raises OSError."""
        self._reserve(self.path(number), "r+b")

    def sync(self, number):
        """Bring it to the disk."""
        with self.path(number).open("rb") as file:
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
        with path.open(mode) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, self.size)
            else:
                file.truncate(self.size)

    def _map(self, path, number):
        content = torch.from_file(str(path), shared=True, size=self.size, dtype=torch.uint8).numpy()
        self[number] = content.view(self.dtype.base).reshape(self.rows, *self.dtype.shape)

    def path(self, number):
        return self.folder / f"{number:08}.{self.kind}"


def aligned_empty(shape, dtype, pin_memory=False):
    """An empty array in torch's memory, which is aligned: see `Policy.actions`."""
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=pin_memory).numpy()
