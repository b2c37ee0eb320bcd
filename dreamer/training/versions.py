"""Write and read versions.yml: a run's versions of this program, Python and packages, its threads, and whether it
compiles."""

import platform
import subprocess
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from dreamer.config.yaml_files import MAX_BYTES, parse
from dreamer.errors import ConfigError
from dreamer.files import claim, is_plain, naming_errors, open_nofollow, write_durably

FILE = "versions.yml"
PACKAGES = (  # from pyproject.toml, those that a run may use
    *("easydreamer", "torch", "numpy", "safetensors", "dm_control", "mujoco", "gymnasium", "gym", "ale-py"),
    *("attridict", "PyYAML", "pydantic", "tensorboard", "tqdm", "matplotlib", "pandas", "scipy", "pillow"),
    *("imageio", "imageio-ffmpeg"),
)
ENTRIES = 100  # the newest, kept beside the first, so that the file stays below the MAX_BYTES that is read
HOME = Path(__file__).resolve().parents[2]


def save_versions(folder: Path, iteration: int, compiled: bool = False) -> None:
    """Add the current versions to the versions.yml of a run, unless its last entry has the same.

    iteration: the last finished one. compiled: whether updates are compiled. Raises OSError.
    """
    claim(folder, FILE)
    entries = read_versions(folder / FILE)
    current = {**versions(), "threads": torch.get_num_threads(), "compiled": compiled}
    if not entries or entries[-1] | current != entries[-1]:
        entries.append({"started": time.strftime("%Y-%m-%d %H:%M:%S"), "after_iteration": iteration, **current})
        first_and_newest = [*entries[:1], *entries[1:][-ENTRIES:]]
        write_durably(folder / FILE, yaml.safe_dump(first_and_newest, sort_keys=False).encode())


def read_versions(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a versions.yml; none if it is missing or damaged. Raises OSError if it cannot be read."""
    if not is_plain(path):
        return []
    with naming_errors(path), open_nofollow(path, "rb") as file:
        content = file.read(MAX_BYTES)
    try:
        entries = parse(path, content.decode)
    except ConfigError:
        return []
    is_whole = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    return entries if is_whole else []


def threads_before(folder: Path) -> int | None:
    """Return the number of threads that a run had when it was last started; None if it is not known."""
    entries = read_versions(folder / FILE)
    threads = entries[-1].get("threads") if entries else None
    return threads if isinstance(threads, int) and threads > 0 else None


def compiled_before(folder: Path) -> bool | None:
    """Return whether the updates of a run were compiled when it was last started; None if it is not known."""
    entries = read_versions(folder / FILE)
    compiled = entries[-1].get("compiled", False) if entries else None
    return compiled if isinstance(compiled, bool) else None


def versions() -> dict[str, str | None]:
    """Return {name: version}: the program's commit, the platform, Python and each package."""
    packages = {name: version_of(name) for name in PACKAGES}
    return {"commit": commit(), "platform": platform.platform(), "python": platform.python_version(), **packages}


def commit() -> str | None:
    """Return the program's commit, with -dirty appended if files have changed; None outside a git repository."""
    if not (HOME / ".git").exists():
        return None
    command = ["git", "-C", str(HOME), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or a repository that is not this user's
        return None


@cache  # versions do not change while the program runs
def version_of(name: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
