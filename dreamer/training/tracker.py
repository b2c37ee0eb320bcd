"""Report curves and videos to Weights & Biases or Trackio, which have almost the same functions."""

import secrets
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dreamer.errors import ConfigError, one_line
from dreamer.files import claim, open_nofollow, owned_files, write_durably
from dreamer.training.video import encode_gif

PROJECT = "easydreamer"


class Tracker:
    """Reports to one run of the package, which continues when this run is resumed.

    The file <package>.id in the run's folder holds its id. Reports after the checkpoint that a run resumes from stay in
    the package and are made a second time, at the same env steps.
    """

    def __init__(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """name: "wandb" or "trackio". settings: the configuration, {dotted key: value}, to be shown there."""
        self.name, self.folder, self.settings = name, folder, settings
        self.package = import_module(name)
        self.videos = TemporaryDirectory()  # from which the package copies
        self.count = 0

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin to report. Raises ConfigError if the package fails to start, for example without a login."""
        arguments = {"project": PROJECT, "config": dict(self.settings), "resume": "allow"}
        run_id = self.run_id()
        try:
            if self.name == "wandb":
                self.run = self.package.init(
                    **arguments,
                    id=run_id,
                    name=self.folder.name,
                    dir=str(self.folder),
                    settings=self.package.Settings(console="off"),
                )
                self.run.define_metric("*", step_metric="env_steps")
            else:
                self.run = self.package.init(**arguments, name=f"{self.folder.name}-{run_id}")
        except Exception as error:  # a package may raise anything, and the run has not begun
            raise ConfigError(f"operation.loggers: {self.name} cannot start: {one_line(error)}") from None

    def run_id(self) -> str:
        """Return the id of the package's run. If there is none yet, write a new one to <package>.id."""
        file = f"{self.name}.id"
        if file in (owned_files(self.folder) or ()) and (self.folder / file).exists():
            with open_nofollow(self.folder / file, "r") as opened:
                return opened.read()
        run_id = secrets.token_hex(4)
        claim(self.folder, file, f"{file}.tmp")
        write_durably(self.folder / file, run_id.encode())
        return run_id

    def scalars(self, values: Mapping[str, float], env_steps: int, iteration: int = 0) -> None:
        """Report {tag: value}."""
        self.report({"iteration": iteration, **values}, env_steps)

    def video(self, tag: str, frames: np.ndarray, env_steps: int, frames_per_second: float = 15) -> None:
        """Report frames, uint8 (T, height, width, 3), as an animation."""
        self.count += 1
        path = Path(self.videos.name) / f"{self.count}.gif"
        path.write_bytes(encode_gif(frames, frames_per_second))
        self.report({tag: self.package.Video(str(path))}, env_steps)

    def report(self, values: dict[str, Any], env_steps: int) -> None:
        """Report values at env steps. W&B gets env steps as one more value, since its own steps cannot go back."""
        if self.name == "wandb":
            self.run.log({"env_steps": env_steps, **values})
        else:
            self.run.log(values, step=env_steps)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the package keeps what was reported."""
        return {}

    def close(self) -> None:
        """Wait until everything is reported."""
        if hasattr(self, "run"):
            self.run.finish()
        self.videos.cleanup()
