"""The folder of a run: runs/<date>_<time>_<name>."""

import time
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dreamer.checkpoint import write_durably
from dreamer.config import ConfigError

ROOT = Path("runs")
CONFIGURATION = "config.yml"


def make_run_folder(name, root=ROOT):
    """Make and return `root`/<date>_<time>_<name>, with a number behind it if another run took that."""
    root.mkdir(parents=True, exist_ok=True)
    stem = time.strftime(f"%Y-%m-%d_%H-%M-%S_{name}")
    for attempt in range(1, 1000):
        folder = root / (stem if attempt == 1 else f"{stem}_{attempt}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise FileExistsError(f"{root}/{stem} and a thousand like it exist")


def find_run(name, root=ROOT):
    """The folder of a run that is there already: its path, or "latest" for the one that started last."""
    runs = sorted(path.parent for path in root.glob(f"*/{CONFIGURATION}"))
    if name == "latest":
        if not runs:
            raise ConfigError(f"there is no run in {root.resolve()}")
        return runs[-1]
    if not (Path(name) / CONFIGURATION).is_file():
        known = f"; the latest is {runs[-1]}" if runs else ""
        raise ConfigError(f"{name} is not the folder of a run: it has no {CONFIGURATION}{known}")
    return Path(name)


@contextmanager
def lock_run(folder):
    """Hold the run's lock, at the latest until the process ends. Raises ConfigError if another one holds it."""
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout:
        raise ConfigError(f"{folder} is in use by another process") from None


def save_configuration(folder, text):
    """Keep the resolved configuration, YAML text, with the run."""
    write_durably(folder / CONFIGURATION, text.encode())
