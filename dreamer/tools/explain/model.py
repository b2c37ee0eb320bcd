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
from dreamer.tools.explain.opened_run import OpenedRun

WINDOW_COUNT = {True: 16, False: 128}  # number of predicted windows with pixels, with vectors alone
NEWEST_EPISODES = 2  # Dreamer has not yet learned from those that it has just collected
MAX_HORIZON = 15  # steps of a prediction, at most
MOVING_STD = 0.02  # std of a pixel, relative to the range of all pixels, above which it moves
DEAD_KL = 0.01  # nats of KL below which a group or a component of the latent state holds no information


@torch.no_grad()
def measure_model(run: OpenedRun) -> dict[str, Any]:
    """Return figures of the world model, {name: number or list}, without those that cannot be measured."""
    figures = {"pixels": float(has_image(run))} | measure_rates(run)
    horizon = min(MAX_HORIZON, run.settings.horizon_length)
    starts = windows_in_one_episode(run, CONTEXT + horizon)
    while not len(starts) and horizon > 1:  # episodes are shorter than that
        horizon //= 2
        starts = windows_in_one_episode(run, CONTEXT + horizon)
    if not len(starts):
        return figures
    batch = run.windows(starts, CONTEXT + horizon)
    model: WorldModel = run.networks["model"]
    prior, posterior = observe(model, batch)
    figures |= measure_predictions(model, batch, posterior)
    figures |= measure_rewards(run, batch, posterior)
    figures |= measure_latent(prior, posterior)
    newest_episodes = run.episodes()[-NEWEST_EPISODES:]
    if newest_episodes:
        starts = windows_in_one_episode(run, CONTEXT + horizon, newest_episodes[0].start)
        if len(starts):
            prior, posterior = observe(model, run.windows(starts, CONTEXT + horizon))
            figures["kl_newest"] = measure_latent(prior, posterior)["kl"]
    return figures


def has_image(run: OpenedRun) -> bool:
    """Return whether pixels are observed, perhaps beside vectors."""
    observation = run.replay.step_type["observation"]
    return observation.base == np.uint8 or observation.names is not None


def measure_rates(run: OpenedRun) -> dict[str, float]:
    """Return the learning rates relative to the weights' root mean square: the largest relative change by an update."""
    rates = {}
    for part in ("model", "actor", "critic"):
        if part in run.networks:
            weights = [weight for weight in run.networks[part].parameters() if weight.dim() > 1]
            rms = torch.cat([weight.flatten() for weight in weights]).square().mean().sqrt().item()
            rates[f"rate/{part}"] = run.settings[f"{part}_learning_rate"] / rms
    return rates


def windows_in_one_episode(run: OpenedRun, length: int, first_step: int = 0) -> np.ndarray:
    """Return the numbers of the first steps of random windows in which no episode begins after their first step.

    first_step: the number of the first step that may be in a window.
    """
    first_step = max(first_step, run.steps.start)
    is_first = run.scalars["is_first"][first_step - run.steps.start :] == 1
    if len(is_first) < length:
        return np.empty(0, int)
    episode_counts = np.concatenate([[0], np.cumsum(is_first)])  # at i: episodes that begin before step i
    starts = np.arange(len(is_first) - length + 1)
    begins_inside = episode_counts[starts + length] - episode_counts[starts + 1] > 0
    starts = starts[~begins_inside]
    if run.windows_begin_episodes:
        starts = starts[is_first[starts]]
    if len(starts):
        count = min(WINDOW_COUNT[has_image(run)], len(starts))
        starts = np.random.default_rng(0).choice(starts, count, replace=False)
    return first_step + np.sort(starts)


def measure_predictions(model: WorldModel, batch: Batch, posterior: State) -> dict[str, Any]:
    """Return the explained shares of observations: reconstructed, predicted in an open loop, and if nothing moved.

    Of the parts of an observation (image and vector), only the one that is reconstructed worst is returned.
    """
    context = posterior.map(lambda part: part[:, CONTEXT - 1])
    prior = model.rssm.imagine(context, batch.action[:, CONTEXT:])
    truth = parts_of(model.normalize(batch.observation))
    reconstructed = parts_of(model.decoder(posterior.feature[:, CONTEXT:]).mean)
    predicted = parts_of(model.decoder(prior.feature).mean)
    figures_by_part = []
    for name, part in truth.items():
        target, last_context = part[:, CONTEXT:], part[:, CONTEXT - 1 : CONTEXT]
        mask = moving_components(part)
        figures_by_part.append(
            {
                "reconstruction": explained_variance(reconstructed[name], target, mask).mean().item(),
                "open_loop": explained_variance(predicted[name], target, mask).tolist(),
                "still": explained_variance(last_context.expand_as(target), target, mask).tolist(),
                "moving": mask.float().mean().item(),
            }
        )
    return min(figures_by_part, key=lambda figures: figures["reconstruction"])


def parts_of(observation: Any) -> dict[str, torch.Tensor]:
    """Return the parts of an observation (B, T, ·) by name."""
    return observation if isinstance(observation, dict) else {"": observation}


def moving_components(part: torch.Tensor) -> torch.Tensor:
    """Return a mask (·) of the components of observations (B, T, ·) that change: of vectors all that do, of images
    those whose std is above MOVING times the range of all pixels."""
    spread = part.flatten(end_dim=1).std(0)
    min_spread = MOVING_STD * (part.max() - part.min()) if part.dim() == 5 else 0
    mask = spread > min_spread
    return mask if mask.any() else torch.ones_like(mask)


def explained_variance(prediction: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the predicted share of the variance of (B, T, ·) in each step, (T,), over the components in `mask`."""
    prediction, truth = prediction[:, :, mask], truth[:, :, mask]
    mean = truth.flatten(end_dim=1).mean(0)
    variance = (truth - mean).square().sum(-1).mean()
    error = (prediction - truth).square().sum(-1).mean(0)
    return 1 - error / variance.clamp(min=1e-12)


def measure_rewards(run: OpenedRun, batch: Batch, posterior: State) -> dict[str, Any]:
    """Return the share of rewards that latent states explain: of their own step, of the next one, of the one before."""
    reward = batch.reward.tanh() if run.settings.reward_transform == "tanh" else batch.reward
    predicted = run.networks["model"].reward_model(posterior.feature).mean
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
    kl = component_kl(prior, posterior)[:, CONTEXT:].mean((0, 1))
    return {"kl": kl.sum().item(), "dead": (kl < DEAD_KL).float().mean().item(), "groups": len(kl)}


def component_kl(prior: State, posterior: State) -> torch.Tensor:
    """Return the KL of each component of a Gaussian latent state, or each group of a categorical one, (B, T, S)."""
    posterior_parameters, prior_parameters = tuple(posterior.parameters or ()), tuple(prior.parameters or ())
    if len(posterior_parameters) == 1:
        (log_probs,), (prior_log_probs,) = posterior_parameters, prior_parameters
        return (log_probs.exp() * (log_probs - prior_log_probs)).sum(-1)
    (mean, std), (prior_mean, prior_std) = posterior_parameters, prior_parameters
    variance_ratio = (std / prior_std).square()
    squared_distance = ((mean - prior_mean) / prior_std).square()
    return 0.5 * (variance_ratio + squared_distance - 1 - variance_ratio.log())
