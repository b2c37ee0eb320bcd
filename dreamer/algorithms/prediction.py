"""What the world model expects to see, beside what came. Batches of pixels: as from `ReplayBuffer.sample`."""

import torch

CONTEXT = 5  # frames seen before the model is left to its imagination


@torch.no_grad()
def open_loop_prediction(model, batch, sequences=6):
    """Filter the first frames of some windows, then imagine the rest with the real actions.

    Windows that run into another episode after the context are left out: no action foretells a reset.
    Returns truth and prediction, uint8 (K, T, 3, height, width) with K at most `sequences`, and the number of
    context frames; K can be 0.
    """
    context = min(CONTEXT, batch.action.shape[1] - 1)
    in_one_episode = batch.is_first[:, context:].sum(1) == 0
    batch = batch.rows(in_one_episode.nonzero()[:sequences, 0])
    _, posterior = model.observe(batch.begin(context))
    prior = model.rssm.imagine(posterior.last(), batch.action[:, context:])
    prediction = model.picture(torch.cat([posterior.feature, prior.feature], 1))
    return seen(batch.observation), prediction, context


def seen(observation):
    """The pixels of an observation."""
    return observation["image"] if isinstance(observation, dict) else observation


@torch.no_grad()
def reconstruction(model, batch):
    """What the model makes of the frames that it sees: uint8 (B, T, 3, height, width)."""
    _, posterior = model.observe(batch)
    return model.picture(posterior.feature)
