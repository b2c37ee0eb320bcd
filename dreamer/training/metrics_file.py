"""Write and read the curves of a run as text: metrics.jsonl has a line of JSON for each report."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.training.log_files import LogFiles

FILE = "metrics.jsonl"


class MetricsFile(LogFiles):
    """Writes {"iteration": …, "env_steps": …, tag: number, …} for each report, and no videos."""

    def scalars(self, values: Mapping[str, float], env_steps: int, iteration: int = 0) -> None:
        """Write a line with {tag: value}."""
        line = json.dumps({"iteration": iteration, "env_steps": env_steps, **values}, default=float)
        self.append(f"{line}\n".encode())

    def video(self, tag: str, frames: np.ndarray, env_steps: int, frames_per_second: float = 15) -> None:
        """Write nothing."""

    def new_name(self) -> str:
        """Return the name of the only file."""
        return FILE

    def files(self) -> list[Path]:
        """Return the file, if it exists, and the unfinished copy that a killed process may have left."""
        return sorted(self.folder.glob(f"{FILE}*"))

    def undamaged(self, content: bytes) -> bytes:
        """Return the lines that can be read."""
        return b"".join(line for line in content.splitlines(keepends=True) if _read(line) is not None)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the readable lines of a run's metrics.jsonl; [] if there is no such file."""
    path = folder / FILE
    if not path.is_file():
        return []
    entries = map(_read, path.read_bytes().splitlines(keepends=True))
    return [entry for entry in entries if entry is not None]


def _read(line: bytes) -> dict[str, Any] | None:
    """Return the content of a line; None if it is damaged or incomplete."""
    try:
        entry = json.loads(line)
    except ValueError:  # of JSON or of UTF-8
        return None
    is_whole = isinstance(entry, dict) and isinstance(entry.get("env_steps"), int) and line.endswith(b"\n")
    return entry if is_whole else None
