"""Read the parts of an agent from the folder of a run, and build its networks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dreamer.build import build_actor, build_critic, build_ensemble, build_world_model
from dreamer.config.load import CONFIGURATION, Config, load_config
from dreamer.envs.make import read_spaces
from dreamer.envs.spaces import Spaces, spaces_from_json
from dreamer.errors import CheckpointError, EnvError, EnvFault
from dreamer.modules.loading import check_weights, load_weights
from dreamer.training.checkpoint_file import NEWEST, load_chosen

Weights = Mapping[str, Mapping[str, torch.Tensor]]  # {"model": its state_dict, "actor": …}, as in a checkpoint


class AgentParts(NamedTuple):
    """The arguments of an `Agent`."""

    config: Config  # of the run, every key
    spaces: Spaces  # the environment's own
    weights: Weights  # of "model" and "actor" at least
    iteration: int = 0  # of the run, after which it saved these weights


def read_run(
    folder: Path, checkpoint: str = NEWEST, also: Callable[[dict[str, Any]], object] = lambda state: None
) -> AgentParts:
    """Return an agent's parts from a run. checkpoint: as for `load_chosen`. also: called with the checkpoint's state.

    Raises ConfigError or CheckpointError.
    """
    config = load_config(folder / CONFIGURATION, warns=False)
    weights: dict[str, Any] = {}
    saved_spaces: dict[str, Any] = {}

    def use(state: dict[str, Any]) -> None:
        weights.update(state["algorithm"]["networks"])
        saved_spaces.update(state["spaces"])
        also(state)

    iteration = load_chosen(folder, checkpoint, use)
    try:
        spaces = spaces_from_json(saved_spaces) if saved_spaces else read_spaces(config.environment)
        return AgentParts(config, spaces, weights, iteration)
    except (EnvError, EnvFault) as error:
        reason = "its checkpoints are of an older version and lack the environment's spaces"
        raise CheckpointError(f"{folder}: {reason}, and the environment cannot be made here: {error}") from None


def build_networks(config: Config, env: Any, weights: Weights, device: torch.device) -> dict[str, Any]:
    """Return an agent's networks by name, with weights loaded; critic and ensemble only if `weights` has them.

    env: has the agent's spaces. Raises ConfigError if the weights do not fit, NotFiniteError.
    """
    model = build_world_model(config, env, device)
    networks: dict[str, Any] = {"model": model, "actor": build_actor(config, env, device)}
    if "critic" in weights:
        networks["critic"] = build_critic(config, device)
    if "one_step_model" in weights:
        networks["one_step_model"] = build_ensemble(config, env, model.encoder.embedding_size, device)
    load_weights(networks, weights, "this agent")
    check_weights(networks, "this agent")
    return networks
