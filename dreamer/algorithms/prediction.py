"""Images that the world model predicts, for comparison with the real ones."""

from typing import Any

import torch

from dreamer.modules.rssm import State
from dreamer.modules.world_model import WorldModel
from dreamer.replay.step import Batch

CONTEXT = 5  # frames seen before the prediction begins


def image_of(observation: Any, axes: int = 0) -> Any:
    """Return an observation's image (..., C, height, width), if it has one with C = 1 or 3; else None.

    observation: an array, a tensor or a dict of them. axes: the number of axes before those of one observation.
    """
    image = image_part(observation)
    is_image = image.ndim == axes + 3 and image.shape[-3] in (1, 3)
    return image if is_image else None


def image_part(observation: Any) -> Any:
    """Return the image of an observation of several parts; any other observation unchanged."""
    return observation["image"] if isinstance(observation, dict) else observation


def observe(model: WorldModel, batch: Batch) -> tuple[State, State]:
    """Filter a batch of windows. Returns the prior and the posterior states, (B, T, ·)."""
    _, embedding = model.encode(batch.observation)
    return model.rssm.observe(embedding, batch.action, batch.is_first, batch.latent)


@torch.no_grad()
def open_loop_prediction(model: WorldModel, batch: Batch, sequences: int = 6) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Filter the first frames of some windows of pixels, then imagine the rest with the real actions.

    Windows that run into another episode after the context are left out: no action predicts a reset. Returns truth and
    prediction, uint8 (K, T, C, height, width) with K at most `sequences`, and the number of context frames; K can be 0.
    """
    context = min(CONTEXT, batch.action.shape[1] - 1)
    in_one_episode = batch.is_first[:, context:].sum(1) == 0
    batch = batch.rows(in_one_episode.nonzero()[:sequences, 0])
    _, posterior = observe(model, batch.first_steps(context))
    prior = model.rssm.imagine(posterior.last(), batch.action[:, context:])
    prediction = decode_images(model, torch.cat([posterior.feature, prior.feature], 1))
    return image_part(batch.observation), prediction, context


@torch.no_grad()
def reconstruction(model: WorldModel, batch: Batch) -> torch.Tensor:
    """Return the model's reconstruction of the frames of a batch, uint8 (B, T, C, height, width)."""
    _, posterior = observe(model, batch)
    return decode_images(model, posterior.feature)


def decode_images(model: WorldModel, feature: torch.Tensor) -> torch.Tensor:
    """Return the images decoded from features, (B, T, F) → uint8 (B, T, C, height, width)."""
    return model.to_pixels(image_part(model.decoder(feature).mean))
