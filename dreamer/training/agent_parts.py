"""The parts of an agent, read from a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dreamer.config.load import CONFIGURATION, Config, load_config
from dreamer.envs.make import own_spaces
from dreamer.envs.spaces import Spaces, spaces_from_json
from dreamer.errors import CheckpointError, EnvError, EnvFault
from dreamer.training.checkpoint_file import NEWEST, load_chosen

Weights = Mapping[str, Mapping[str, torch.Tensor]]  # a state_dict each of "model", "actor", …, as in a checkpoint


class Parts(NamedTuple):
    """The arguments of an `Agent`."""

    config: Config  # of the run, every key
    spaces: Spaces  # the environment's own
    weights: Weights  # of "model" and "actor" at least
    iteration: int = 0  # in which the run had these weights


def read_run(folder: Path, checkpoint: str = NEWEST) -> Parts:
    """Return the parts from a run. checkpoint: as for `load_chosen`. Raises ConfigError or CheckpointError."""
    config = load_config(folder / CONFIGURATION, warns=False)
    weights, plain = {}, {}

    def use(state: dict[str, Any]) -> None:
        weights.update(state["algorithm"]["networks"])
        plain.update(state["spaces"])

    iteration = load_chosen(folder, checkpoint, use)
    try:
        spaces = spaces_from_json(plain) if plain else own_spaces(config.environment)
        return Parts(config, spaces, weights, iteration)
    except (EnvError, EnvFault) as error:
        reason = "its checkpoints are of an older version and lack the environment's spaces"
        raise CheckpointError(f"{folder}: {reason}, and the environment cannot be made here: {error}") from None
