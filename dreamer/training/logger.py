"""Send the curves, videos and texts of a run to the backends of `operation.loggers`."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dreamer.config.load import Config, flatten, load_config
from dreamer.errors import ConfigError, pip_install

TRACKERS = "wandb", "trackio"  # loggers that are packages of their own
NAMED = [  # keys that distinguish runs
    "algorithm",
    "version",
    "environment.domain_name",
    "environment.task_name",
    "operation.seed",
]
PlainValue = bool | int | float | str  # the type of a hyperparameter


class LoggerBackend(Protocol):
    """A backend to which a run reports, with env steps as the horizontal axis of its curves."""

    def scalars(self, values: Mapping[str, float], env_steps: int, iteration: int = 0) -> None:
        """Write {tag: value}. iteration: 0 in the seed episodes."""

    def video(self, tag: str, frames: np.ndarray, env_steps: int, frames_per_second: float = 15) -> None:
        """Write frames, uint8 (T, height, width, 3), if videos can be shown there."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which `load_state_dict` can go back to this moment."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state; {} is the beginning. Call it once, before anything is written."""

    def close(self) -> None:
        """Write everything that is still in memory."""


class Logger:
    """Reports to several backends, by their names in `operation.loggers`."""

    def __init__(self, backends: Mapping[str, LoggerBackend]) -> None:
        self.backends = dict(backends)
        self.others: dict[str, Any] = {}  # states of backends that this run reported to before

    def scalars(self, values: Mapping[str, float], env_steps: int, iteration: int = 0) -> None:
        """Write {tag: value} everywhere. iteration: 0 in the seed episodes."""
        for backend in self.backends.values():
            backend.scalars(values, env_steps, iteration)

    def video(self, tag: str, frames: np.ndarray, env_steps: int, frames_per_second: float = 15) -> None:
        """Write frames, uint8 (T, height, width, 3), wherever videos can be shown."""
        for backend in self.backends.values():
            backend.video(tag, frames, env_steps, frames_per_second)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all backends, by name."""
        return self.others | {name: backend.state_dict() for name, backend in self.backends.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state. The state of an older version is TensorBoard's alone."""
        is_older = any(not isinstance(part, dict) for part in state.values())
        states = {"tensorboard": state} if is_older else dict(state)
        for name, backend in self.backends.items():
            backend.load_state_dict(states.pop(name, {}))
        self.others = states

    def close(self) -> None:
        """Close all backends."""
        for backend in self.backends.values():
            backend.close()


def build_logger(config: Config, folder: Path, text: str) -> Logger:
    """Return the `Logger` of a run. text: its configuration in YAML. Nothing is written yet."""
    backends: dict[str, LoggerBackend] = {}
    for name in config.operation.loggers:
        if name == "tensorboard":
            from dreamer.training.tensorboard_log import TensorBoardLog  # late: it takes a second

            backends[name] = TensorBoardLog(folder, text, hyperparameters_of(config))
        elif name == "jsonl":
            from dreamer.training.metrics_file import MetricsFile

            backends[name] = MetricsFile(folder)
        else:
            from dreamer.training.tracker import Tracker

            backends[name] = Tracker(name, folder, flatten(config))
    return Logger(backends)


def check_loggers(names: Sequence[str]) -> None:
    """Raise ConfigError for a logger whose package is not installed."""
    for name in names:
        if name in TRACKERS and find_spec(name) is None:
            raise ConfigError(f"operation.loggers: {name} is not installed: {pip_install(name)}")


def hyperparameters_of(config: Config) -> dict[str, PlainValue]:
    """Return the keys that differ from the defaults, and those of NAMED, with their values."""
    values = flatten(config)
    defaults = flatten(load_config("dreamer"))
    keys = [key for key, value in values.items() if key in NAMED or value != defaults.get(key)]
    return {key: _plain(values[key]) for key in keys}


def _plain(value: object) -> PlainValue:
    return value if isinstance(value, (bool, int, float)) else str(value)
