"""What a run was made with: the commit of this program, Python and the packages that it needs."""

import platform
import re
import subprocess
import time
from importlib import metadata
from pathlib import Path

import yaml

from dreamer.config.yaml_files import LONGEST, parse
from dreamer.errors import ConfigError
from dreamer.files import claim, is_plain, naming, open_own, write_durably

FILE = "versions.yml"
REQUIREMENTS = ["requirements.txt", "requirements-atari.txt", "requirements-gymnasium.txt"]
ENTRIES = 100  # that are kept beside the first: so many can be read again
HOME = Path(__file__).resolve().parents[2]


def save_versions(folder, iteration):
    """Add what runs now to the versions.yml of a run, unless it is what ran last.

    iteration: how many were done before. Raises OSError.
    """
    claim(folder, FILE)
    entries, now = read_versions(folder / FILE), versions()
    if not entries or entries[-1] | now != entries[-1]:
        entries.append({"started": time.strftime("%Y-%m-%d %H:%M:%S"), "after_iteration": iteration, **now})
        kept = [*entries[:1], *entries[1:][-ENTRIES:]]
        write_durably(folder / FILE, yaml.safe_dump(kept, sort_keys=False).encode())


def read_versions(path):
    """A list of dicts; an empty one for what is not there or was damaged. Raises OSError for what cannot be read."""
    if not is_plain(path):
        return []
    with naming(path), open_own(path, "rb") as file:
        content = file.read(LONGEST)
    try:
        entries = parse(path, content.decode)
    except ConfigError:
        return []
    return entries if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries) else []


def versions():
    """{name: version}: of the program (its commit), of the platform, of Python and of each package."""
    packages = {name: version_of(name) for name in requirements()}
    return {"commit": commit(), "platform": platform.platform(), "python": platform.python_version(), **packages}


def commit():
    """The commit, with -dirty behind it if files were changed since; None outside a git repository."""
    if not (HOME / ".git").exists():
        return None
    command = ["git", "-C", str(HOME), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or a repository that is not this user's
        return None


def requirements():
    """The names of the packages that a run may use."""
    texts = [path.read_text() for name in REQUIREMENTS if (path := HOME / name).exists()]
    return [name for text in texts for name in re.findall(r"^\w[\w-]*", text, re.MULTILINE)]


def version_of(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
