"""What the world model expects to see, beside what came. Batches of pixels: as from `ReplayBuffer.sample`."""

import torch

CONTEXT = 5  # frames seen before the model is left to its imagination


def image_of(observation, axes=0):
    """What people can be shown of an observation, array or tensor (..., C, height, width): its image, if C is 1 or 3.
    None for vectors and for other images. axes: how many come before those of one observation."""
    image = image_part(observation)
    return image if image.ndim == axes + 3 and image.shape[-3] in (1, 3) else None


def image_part(observation):
    """The image of an observation in parts; any other one as it is."""
    return observation["image"] if isinstance(observation, dict) else observation


@torch.no_grad()
def open_loop_prediction(model, batch, sequences=6):
    """Filter the first frames of some windows, then imagine the rest with the real actions.

    Windows that run into another episode after the context are left out: no action foretells a reset.
    Returns truth and prediction, uint8 (K, T, C, height, width) with K at most `sequences`, and the number of
    context frames; K can be 0.
    """
    context = min(CONTEXT, batch.action.shape[1] - 1)
    in_one_episode = batch.is_first[:, context:].sum(1) == 0
    batch = batch.rows(in_one_episode.nonzero()[:sequences, 0])
    _, posterior = model.observe(batch.begin(context))
    prior = model.rssm.imagine(posterior.last(), batch.action[:, context:])
    return image_part(batch.observation), decoded(model, torch.cat([posterior.feature, prior.feature], 1)), context


@torch.no_grad()
def reconstruction(model, batch):
    """What the model makes of the frames that it sees: uint8 (B, T, C, height, width)."""
    _, posterior = model.observe(batch)
    return decoded(model, posterior.feature)


def decoded(model, feature):
    """The images that features stand for, (B, T, F) → uint8 (B, T, C, height, width)."""
    return model.restore(image_part(model.decoder(feature).mean))
