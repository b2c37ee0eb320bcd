"""Check that no file of a run is a link: in a stranger's run it could lead to files outside of the folder."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from dreamer.config.load import CONFIGURATION
from dreamer.errors import ConfigError
from dreamer.files import FILE_LIST, legacy_files, owned_files
from dreamer.training.versions import FILE as VERSIONS

RANK = re.compile(r"rank-\d+")  # the name of a data-parallel worker's folder
REPLAY = "replay"


def check_links(folder: Path) -> None:
    """Raise ConfigError if a file or folder of a run is a link, or is not of the expected kind."""
    for place in (folder, *(path for path in folder.glob("rank-*") if RANK.fullmatch(path.name))):
        folders = {place, place / REPLAY} - {folder}  # the run's own folder is what the user named
        _check_kind(folders, Path.is_dir, "folder")
        _check_kind({place / name for name in (CONFIGURATION, VERSIONS, FILE_LIST)}, Path.is_file, "file")
        owned = owned_files(place)
        names = legacy_files(place) if owned is None else owned
        _check_kind({place / name for name in names}, Path.is_file, "file")


def _check_kind(paths: Iterable[Path], is_right: Callable[[Path], bool], kind: str) -> None:
    for path in sorted(paths):
        if path.is_symlink():
            raise ConfigError(f"{path} is a link, which is not followed; put the {kind} itself into the run's folder")
        if os.path.lexists(path) and not is_right(path):
            raise ConfigError(f"{path} is not a {kind}, as the run expects; move it away")
