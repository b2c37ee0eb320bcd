"""The check that all files of a run lie in its folder: a stranger may have made it, with links that lead elsewhere."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from dreamer.config.load import CONFIGURATION
from dreamer.errors import ConfigError
from dreamer.files import RECORD, lookalikes, own_files
from dreamer.training.versions import FILE as VERSIONS

RANK = re.compile(r"rank-\d+")  # the name of a data-parallel worker's folder
REPLAY = "replay"


def check_links(folder: Path) -> None:
    """Raise ConfigError if a file of a run is a link, or is no file."""
    for place in (folder, *(path for path in folder.glob("rank-*") if RANK.fullmatch(path.name))):
        folders = {place, place / REPLAY} - {folder}  # the run's own folder is what the user named
        _check_kind(folders, Path.is_dir, "folder")
        _check_kind({place / name for name in (CONFIGURATION, VERSIONS, RECORD)}, Path.is_file, "file")
        own = own_files(place)
        _check_kind({place / name for name in (lookalikes(place) if own is None else own)}, Path.is_file, "file")


def _check_kind(paths: Iterable[Path], is_right: Callable[[Path], bool], kind: str) -> None:
    for path in sorted(paths):
        if path.is_symlink():
            raise ConfigError(f"{path} is a link: a run's files lie in its folder and nowhere else; it is not followed")
        if os.path.lexists(path) and not is_right(path):
            raise ConfigError(f"{path} is in the way of the run: it is not a {kind}")
