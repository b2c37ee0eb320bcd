"""What the world model expects to see, beside what came."""

import torch

from dreamer.modules.pixels import restore_pixels
from dreamer.video import prediction_frames

CONTEXT = 5  # frames seen before the model is left to its imagination


@torch.no_grad()
def open_loop_prediction(model, batch, pixel_norm, sequences=6):
    """Filter the first frames of some windows, then imagine the rest with the real actions.

    batch: as from `Dreamer.normalize`. Windows that run into another episode after the context are left
    out: no action foretells a reset. Returns truth and prediction, uint8 (K, T, 3, height, width)
    with K at most `sequences`, and the number of context frames; K can be 0.
    """
    context = min(CONTEXT, batch.action.shape[1] - 1)
    in_one_episode = batch.is_first[:, context:].sum(1) == 0
    batch = type(batch)(*(part[in_one_episode][:sequences] for part in batch))
    seen = type(batch)(*(part[:, :context] for part in batch))
    _, posterior = model.rssm.observe(model.encoder(seen.observation), seen.action, seen.is_first)
    prior = model.rssm.imagine(posterior.last(), batch.action[:, context:])
    image = model.decoder(torch.cat([posterior.feature, prior.feature], 1)).mean
    return restore_pixels(batch.observation, pixel_norm), restore_pixels(image, pixel_norm), context


def prediction_video(model, batch, pixel_norm):
    """An open-loop prediction as a film, uint8 (T, height, width, 3); None for vectors, or without a fitting window."""
    if batch.observation.dim() == 5:
        truth, prediction, context = open_loop_prediction(model, batch, pixel_norm)
        if len(truth):
            return prediction_frames(truth.cpu().numpy(), prediction.cpu().numpy(), context)
    return None


@torch.no_grad()
def reconstruction(model, batch, pixel_norm):
    """What the model makes of the frames that it sees: uint8 (B, T, 3, height, width)."""
    _, posterior = model.rssm.observe(model.encoder(batch.observation), batch.action, batch.is_first)
    return restore_pixels(model.decoder(posterior.feature).mean, pixel_norm)
