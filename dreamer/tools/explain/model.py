"""Measure the world model: how well it reconstructs and predicts stored steps, and what its latent state holds.

Shapes: B batch, T time (dim 1), F feature size. A share of 1 is a perfect prediction, 0 is as good as the mean.
"""

from typing import Any

import numpy as np
import torch

from dreamer.algorithms.prediction import CONTEXT, observe
from dreamer.modules.rssm import State
from dreamer.modules.world_model import WorldModel
from dreamer.replay.step import Batch
from dreamer.tools.explain.subject import Subject

WINDOWS = {True: 16, False: 128}  # number of predicted windows with pixels, with vectors alone
NEWEST = 2  # episodes; Dreamer has not yet learned from those that it has just collected
LONGEST = 15  # steps of a prediction, at most
MOVING = 0.02  # std of a pixel, relative to the range of all pixels, above which it moves
DEAD = 0.01  # nats of KL below which a group or a component of the latent state holds no information


@torch.no_grad()
def measure_model(subject: Subject) -> dict[str, Any]:
    """Return figures of the world model, {name: number or list}, without those that cannot be measured."""
    figures = {"pixels": float(has_image(subject))} | measure_rates(subject)
    horizon = min(LONGEST, subject.settings.horizon_length)
    starts = quiet_windows(subject, CONTEXT + horizon)
    while not len(starts) and horizon > 1:  # episodes are shorter than that
        horizon //= 2
        starts = quiet_windows(subject, CONTEXT + horizon)
    if not len(starts):
        return figures
    batch = subject.windows(starts, CONTEXT + horizon)
    model: WorldModel = subject.networks["model"]
    prior, posterior = observe(model, batch)
    figures |= measure_predictions(model, batch, posterior)
    figures |= measure_rewards(subject, batch, posterior)
    figures |= measure_latent(prior, posterior)
    for episode in subject.episodes()[-NEWEST:][:1]:
        newest = quiet_windows(subject, CONTEXT + horizon, episode.start)
        if len(newest):
            latest = measure_latent(*observe(model, subject.windows(newest, CONTEXT + horizon)))
            figures["kl_newest"] = latest["kl"]
    return figures


def has_image(subject: Subject) -> bool:
    """Return whether pixels are observed, perhaps beside vectors."""
    observation = subject.replay.step_type["observation"]
    return observation.base == np.uint8 or observation.names is not None


def measure_rates(subject: Subject) -> dict[str, float]:
    """Return the learning rates relative to the weights' root mean square: the largest relative change by an update."""
    rates = {}
    for part in ("model", "actor", "critic"):
        if part in subject.networks:
            weights = [weight for weight in subject.networks[part].parameters() if weight.dim() > 1]
            size = torch.cat([weight.flatten() for weight in weights]).square().mean().sqrt().item()
            rates[f"rate/{part}"] = subject.settings[f"{part}_learning_rate"] / size
    return rates


def quiet_windows(subject: Subject, length: int, since: int = 0) -> np.ndarray:
    """Return the numbers of the first steps of random windows in which no episode begins after their first step.

    since: the number of the first step that may be in a window.
    """
    since = max(since, subject.steps.start)
    begins = subject.scalars["is_first"][since - subject.steps.start :] == 1
    if len(begins) < length:
        return np.empty(0, int)
    counts = np.concatenate([[0], np.cumsum(begins)])
    places = np.arange(len(begins) - length + 1)
    quiet = places[counts[places + length] - counts[places + 1] == 0]
    if subject.cold:
        quiet = quiet[begins[quiet]]
    random, count = np.random.default_rng(0), WINDOWS[has_image(subject)]
    chosen = random.choice(quiet, min(count, len(quiet)), replace=False) if len(quiet) else quiet
    return since + np.sort(chosen)


def measure_predictions(model: WorldModel, batch: Batch, posterior: State) -> dict[str, Any]:
    """Return the explained shares of observations: reconstructed, predicted in an open loop, and if nothing moved.

    Of the parts of an observation (image and vector), only the one that is reconstructed worst is returned.
    """
    context = posterior.map(lambda part: part[:, CONTEXT - 1])
    prior = model.rssm.imagine(context, batch.action[:, CONTEXT:])
    truth = parts_of(model.normalize(batch.observation))
    reconstructed = parts_of(model.decoder(posterior.feature[:, CONTEXT:]).mean)
    predicted = parts_of(model.decoder(prior.feature).mean)
    found = []
    for name, part in truth.items():
        seen, last = part[:, CONTEXT:], part[:, CONTEXT - 1 : CONTEXT]
        mask = moving(part)
        found.append(
            {
                "reconstruction": explained(reconstructed[name], seen, mask).mean().item(),
                "open_loop": explained(predicted[name], seen, mask).tolist(),
                "still": explained(last.expand_as(seen), seen, mask).tolist(),
                "moving": mask.float().mean().item(),
            }
        )
    return min(found, key=lambda figures: figures["reconstruction"])


def parts_of(observation: Any) -> dict[str, torch.Tensor]:
    """Return the parts of an observation (B, T, ·) by name."""
    return observation if isinstance(observation, dict) else {"": observation}


def moving(part: torch.Tensor) -> torch.Tensor:
    """Return a mask (·) of the components of observations (B, T, ·) that change: of vectors all that do, of images
    those whose std is above MOVING times the range of all pixels."""
    spread = part.flatten(end_dim=1).std(0)
    least = MOVING * (part.max() - part.min()) if part.dim() == 5 else 0
    mask = spread > least
    return mask if mask.any() else torch.ones_like(mask)


def explained(prediction: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the predicted share of the variance of (B, T, ·) in each step, (T,), over the components in `mask`."""
    prediction, truth = prediction[:, :, mask], truth[:, :, mask]
    mean = truth.flatten(end_dim=1).mean(0)
    variance = (truth - mean).square().sum(-1).mean()
    error = (prediction - truth).square().sum(-1).mean(0)
    return 1 - error / variance.clamp(min=1e-12)


def measure_rewards(subject: Subject, batch: Batch, posterior: State) -> dict[str, Any]:
    """Return the share of rewards that latent states explain: of their own step, of the next one, of the one before."""
    reward = batch.reward.tanh() if subject.settings.reward_transform == "tanh" else batch.reward
    predicted = subject.networks["model"].reward_model(posterior.feature).mean
    inside = slice(CONTEXT - 1, -1)
    variance = reward[:, inside].var()
    if variance == 0:
        return {}
    shares = {}
    for name, shift in ("reward", 0), ("reward_next", 1), ("reward_before", -1):
        actual = reward.roll(-shift, 1)[:, inside]
        shares[name] = (1 - (predicted[:, inside] - actual).square().mean() / variance).item()
    return shares


def measure_latent(prior: State, posterior: State) -> dict[str, Any]:
    """Return the KL of posterior from prior, and the share of components or groups without information."""
    kl = each_kl(prior, posterior)[:, CONTEXT:].mean((0, 1))
    return {"kl": kl.sum().item(), "dead": (kl < DEAD).float().mean().item(), "groups": len(kl)}


def each_kl(prior: State, posterior: State) -> torch.Tensor:
    """Return the KL of each component of a Gaussian latent state, or each group of a categorical one, (B, T, S)."""
    ours, theirs = tuple(posterior.parameters or ()), tuple(prior.parameters or ())
    if len(ours) == 1:  # log-probabilities
        return (ours[0].exp() * (ours[0] - theirs[0])).sum(-1)
    (mean, std), (prior_mean, prior_std) = ours, theirs
    ratio, distance = (std / prior_std).square(), ((mean - prior_mean) / prior_std).square()
    return 0.5 * (ratio + distance - 1 - ratio.log())
