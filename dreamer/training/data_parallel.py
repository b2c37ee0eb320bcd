"""Divide a configuration among data-parallel workers, and give all but the first stand-ins for logger and evaluations.

Each worker learns from a part of every batch and plays a part of the episodes. Only the first one evaluates, writes the
curves and shows the progress.
"""

import os
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from dreamer.config.load import Config
from dreamer.distributed import count, rank
from dreamer.errors import ConfigError
from dreamer.training.evaluation import Evaluation, EvaluationRequest

DIVIDED = ("batch_size", "num_interaction_episodes", "seed_episodes", "buffer.capacity")


def config_of_rank(config: Config) -> Config:
    """Return this worker's share of a configuration.

    Batches, episodes and the replay are divided. Each worker has its own GPU; all but the first have their own seeds.
    Raises ConfigError if a number cannot be divided.
    """
    if count() == 1:
        return config
    if config.operation.background_collection:
        raise ConfigError("operation.background_collection: True; expected False for several processes")
    share = deepcopy(config)
    settings = share.parameters.dreamer
    for key in DIVIDED:
        divide(settings, key)
    if settings.buffer.capacity < settings.batch_length:
        raise ConfigError(
            "parameters.dreamer.buffer.capacity: each process's part is shorter than batch_length; raise it"
        )
    share.operation.device = device_of_rank(share.operation.device)
    share.operation.seed = seed_of_rank(share.operation.seed)
    if share.environment.seed is not None:
        share.environment.seed = seed_of_rank(share.environment.seed)
    return share


def divide(settings: Config, key: str) -> None:
    """Divide a number of `parameters.dreamer` by the number of workers, in place. Raises ConfigError."""
    *sections, name = key.split(".")
    section = settings[sections[0]] if sections else settings
    value = section[name]
    section[name], remainder = divmod(value, count())
    if remainder:
        raise ConfigError(f"parameters.dreamer.{key}: {value}; expected a multiple of the {count()} processes")


def device_of_rank(name: str) -> str:
    """Return the device of this worker. Raises ConfigError for a GPU with a number, which all workers would share."""
    if ":" in name:
        raise ConfigError(f"operation.device: {name}; each process takes a device of its own: take auto")
    if name == "cpu" or not torch.cuda.is_available():
        return name
    return f"cuda:{os.environ.get('LOCAL_RANK', rank())}"


def seed_of_rank(seed: int) -> int:
    """Return this worker's seed: `seed` itself in the first worker, in the others one derived from `seed` and rank."""
    return int(np.random.SeedSequence((seed, rank())).generate_state(1)[0]) if rank() else seed


def check_restart(folder: Path | None) -> None:
    """Raise ConfigError if torchrun may restart the workers but the run has no named folder.

    Restarted workers would not find their run and would begin another.
    """
    if not folder and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0:
        reason = "torchrun may restart the run (--max-restarts), which must find its folder again"
        raise ConfigError(f"--config: {reason}; add --folder runs/<name>")


# Stand-ins for all workers but the first


class NoState:
    """Saves and loads nothing, in place of a part of a checkpoint."""

    def state_dict(self) -> None:
        return None

    def load_state_dict(self, state: object) -> None:
        pass

    def close(self) -> None:
        pass


class NoLogger(NoState):
    """Replaces the `Logger` in all workers but the first, and writes nothing."""

    def scalars(self, values: dict[str, float], env_steps: int, iteration: int = 0) -> None:
        pass

    def video(self, tag: str, frames: np.ndarray, env_steps: int, frames_per_second: float | None = 15) -> None:
        pass


class NoProgress(NoState):
    """Replaces the `Progress` in all workers but the first, and shows nothing."""

    def begin(self, iteration: int) -> None:
        pass

    def set_activity(self, activity: str) -> None:
        pass

    def leave_out(self, seconds: float) -> None:
        pass

    def add_env_steps(self, env_steps: int) -> None:
        pass

    def end_episode(self, episode_return: float) -> None:
        pass

    def end_evaluation(self, mean_return: float) -> None:
        pass

    def end(self, last: bool) -> None:
        pass


class NoEvaluationRunner(NoState):
    """Replaces the `EvaluationRunner` in all workers but the first, and never evaluates."""

    def start(self, request: EvaluationRequest) -> None:
        pass

    def result(self, wait: bool = True) -> Evaluation | None:
        return None
