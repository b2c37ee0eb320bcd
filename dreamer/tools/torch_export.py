"""Write an agent as a `torch.export` program: one file that torch runs without this package."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from dreamer.modules.actor import Actor
from dreamer.modules.joint import Group
from dreamer.modules.latents import CategoricalModel, Gaussian, GaussianModel, LatentParameters
from dreamer.modules.world_model import WorldModel

DESCRIPTION_FILE = "about.json"  # the description, in the program's file
NOISE_KINDS = {CategoricalModel: "uniform in [0, 1)", GaussianModel: "standard normal"}  # noise that the latent needs
UNUSED_PARTS = ("decoder", "reward_model", "continue_model")  # parts of the world model that acting does not read


class ActingStep(nn.Module):
    """Chooses an action for one observation: encoder, posterior, mode of the actor."""

    def __init__(self, model: WorldModel, actor: Actor):
        super().__init__()
        self.model, self.actor = copy.deepcopy(model), copy.deepcopy(actor)
        for name in UNUSED_PARTS:
            setattr(self.model, name, None)
        self.model.rssm.transition_model = nn.Identity()  # the prior's
        layout = torch.contiguous_format  # the only one that the file keeps
        self.requires_grad_(False).to(memory_format=layout)  # type: ignore[call-overload]  # unknown to torch's stub

    def forward(
        self,
        observation: Any,
        action: torch.Tensor,
        is_first: torch.Tensor,
        state: torch.Tensor,
        noise: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the action (1, A) that follows an observation, and the state (1, F + M) to pass in next time.

        observation, action: o_t as the networks see it, and the action a_t that led to it. is_first (1,): 1 where an
        episode begins; action and state then count as zeros. noise: random numbers of `noise_for`. Computes the same
        as `RSSM.observe_step`, but takes the random numbers of the posterior's sample from outside.
        """
        rssm = self.model.rssm
        embedding = self.model.encoder(self.model.normalize(observation))
        is_continued = (1 - is_first)[:, None]
        previous = rssm.restored(state * is_continued)
        deterministic, memory = rssm.recurrent_model(
            previous.deterministic, previous.stochastic, action * is_continued, previous.memory
        )
        posterior = rssm.representation_model(torch.cat([deterministic, embedding], -1))
        next_state = previous._replace(deterministic=deterministic, stochastic=sample(posterior, noise), memory=memory)
        return self.actor(next_state.feature).mode, next_state.stored


def sample(posterior: LatentParameters, noise: torch.Tensor) -> torch.Tensor:
    """Return the sample z (1, S) that the posterior's own method `sample` would return with this noise."""
    if isinstance(posterior, Gaussian):
        return posterior.mean + posterior.std * noise
    distribution: Any = posterior.distribution
    cumulative_probs = distribution.probs.cumsum(-1)
    index = torch.searchsorted(cumulative_probs, noise[..., None], right=True)
    index = index.clamp(max=cumulative_probs.shape[-1] - 1)  # rounding: the last sum may be below 1
    return distribution.one_hot(index).flatten(-2)


def noise_for(model: WorldModel) -> torch.Tensor:
    """Draw a step's noise: standard normal (1, S) for a Gaussian latent, else uniform (1, G) for each group."""
    network = model.rssm.representation_model
    if isinstance(network, CategoricalModel):
        return torch.rand(1, network.shape[0])
    return torch.randn(1, model.rssm.sizes[1])


def write_program(
    path: Path, model: WorldModel, actor: Actor, observation_space: Any, environment: Mapping[str, Any]
) -> None:
    """Write the program of an agent to a .pt2 file, with a description of its inputs and outputs.

    observation_space: of observations as the networks see them. environment: plain values to put into the description.
    """
    example_inputs = (
        zero_observation(observation_space),
        torch.zeros(1, actor.action_size),
        torch.ones(1),
        torch.zeros(1, model.rssm.stored_size),
        noise_for(model),
    )
    program = torch.export.export(ActingStep(model, actor), example_inputs)
    input_names = "observation", "action", "is_first", "state", "noise"
    inputs = {}
    for name, example in zip(input_names, example_inputs, strict=True):
        inputs[name] = tree_map(describe_tensor, example)
    description = {
        "inputs": inputs,
        "noise": NOISE_KINDS[type(model.rssm.representation_model)],
        "outputs": ["action, " + ", then ".join(map(describe_group, actor.groups)), "state"],
        "first": "is_first 1, action and state zeros",
        "then": "is_first 0, the action and the state that came out before",
        "environment": environment,
    }
    torch.export.save(program, path, extra_files={DESCRIPTION_FILE: json.dumps(description, indent=1)})


def describe_group(group: Group) -> str:
    """Return a group of an action's parts as text."""
    if not group.classes:
        return f"{group.parts} in [-1, 1]"
    return f"{group.parts} one-hot of {group.classes}"


def zero_observation(space: Any) -> Any:
    """Return an observation of zeros in a space, as a batch of one."""
    parts = getattr(space, "spaces", None)
    if parts:
        return {name: zero_observation(part) for name, part in parts.items()}
    return torch.zeros(1, *space.shape, dtype=torch.uint8 if space.dtype == np.uint8 else torch.float32)


def describe_tensor(part: torch.Tensor) -> str:
    """Return the type and the shape of an input as text, such as "float32 (1, 5)"."""
    return f"{str(part.dtype).removeprefix('torch.')} {tuple(part.shape)}"
