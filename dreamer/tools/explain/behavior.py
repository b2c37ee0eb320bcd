"""Measure actor and critic on the newest episodes: imagined rewards and values against what the episodes brought.

Shapes: T time, A action size, F feature size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dreamer.algorithms.prediction import observe
from dreamer.modules.rssm import State
from dreamer.replay.step import Batch
from dreamer.tools.explain.opened_run import OpenedRun

NEWEST_EPISODES = 4
MAX_STEPS = 500  # of an episode
SAMPLES = 16  # of each action distribution
SATURATED = 0.98  # absolute value of an action above which it is at an end of its range


@torch.no_grad()
def measure_behavior(run: OpenedRun) -> dict[str, Any]:
    """Return figures of actor and critic, {name: number}, without those that cannot be measured."""
    figures: list[dict[str, float]] = []
    episodes = [episode for episode in run.episodes() if len(episode) > 1]
    for episode in episodes[-NEWEST_EPISODES:]:
        batch = run.episode_batch(episode, MAX_STEPS)
        _, posterior = observe(run.networks["model"], batch)
        figures.append(
            measure_actor(run, posterior)
            | measure_values(run, batch, posterior)
            | measure_imagination(run, batch, posterior)
            | measure_continues(run, batch, posterior)
        )
    return mean_figures(figures)


def mean_figures(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each figure over the episodes that have it."""
    names = {name for episode_figures in figures for name in episode_figures}
    means = {}
    for name in sorted(names):
        values = [episode_figures[name] for episode_figures in figures if name in episode_figures]
        means[name] = float(np.mean(values))
    return means


def measure_actor(run: OpenedRun, posterior: State) -> dict[str, float]:
    """Return the actor's spread and the share of its actions at the ends of the range; {} if the actions are of both
    kinds, discrete and continuous."""
    actor = run.networks["collector"]
    policy = actor(posterior.feature[0])
    if actor.discrete:
        uniform = sum(group.count * np.log(group.classes) for group in actor.groups)
        return {"actor_spread": policy.entropy().mean().item() / max(uniform, 1e-9)}  # 1: uniform
    if not actor.continuous:
        return {}
    actions = torch.stack([policy.sample() for _ in range(SAMPLES)])
    at_end = (policy.mode.abs() > SATURATED).float().mean().item()
    return {"actor_spread": actions.std(0).mean().item(), "actor_saturated": at_end}


def measure_values(run: OpenedRun, batch: Batch, posterior: State) -> dict[str, float]:
    """Return the critic's mean value of the states and the mean discounted return that followed them.

    The return is bootstrapped from the critic where the time limit ended the episode.
    """
    if "critic" not in run.networks:
        return {}
    value = run.networks["critic"](posterior.feature[0]).mean
    reward, terminal = batch.reward[0], batch.is_terminal[0]
    if run.settings.reward_transform == "tanh":
        reward = reward.tanh()
    gamma = run.settings.discount
    next_return = value[-1]
    if run.config.version == 3:
        next_return = next_return * (1 - terminal[-1])
    returns = [next_return]
    for t in range(len(reward) - 2, -1, -1):
        if run.config.version == 3:  # v(s_t) begins with r_{t+1}
            next_return = reward[t + 1] + gamma * (1 - terminal[t + 1]) * next_return
        else:
            next_return = reward[t] + gamma * (1 - terminal[t]) * next_return
        returns.append(next_return)
    discounted_return = torch.stack(returns[::-1])
    return {
        "value": value.mean().item(),
        "return": discounted_return.mean().item(),
        "return_std": discounted_return.std().item(),
    }


def measure_imagination(run: OpenedRun, batch: Batch, posterior: State) -> dict[str, float]:
    """Return the mean reward of imagined steps from states of the episode, and of the steps that really followed."""
    horizon = min(run.settings.horizon_length, batch.reward.shape[1] - 1)
    model, actor = run.networks["model"], run.networks["actor"]
    starts = range(0, batch.reward.shape[1] - horizon, horizon)
    state = posterior.map(lambda part: part[0, list(starts)])
    rewards = []
    for _ in range(horizon):
        state = model.rssm.imagine_step(state, actor(state.feature).sample())
        rewards.append(model.reward_model(state.feature).mean)
    actual = torch.stack([batch.reward[0, start + 1 : start + 1 + horizon] for start in starts])
    if run.settings.reward_transform == "tanh":
        actual = actual.tanh()
    return {"imagined_reward": torch.stack(rewards).mean().item(), "actual_reward": actual.mean().item()}


def measure_continues(run: OpenedRun, batch: Batch, posterior: State) -> dict[str, float]:
    """Return the mean predicted probability that the task ends, at steps where it does and where it does not."""
    model = run.networks["model"].continue_model
    if model is None:
        return {}
    settings = run.settings
    target = settings.discount if settings.discount_in_continue else 1.0
    continue_probability = model(posterior.feature[0]).mean / target
    end_probability = 1 - continue_probability.clamp(min=0, max=1)
    terminal = batch.is_terminal[0] == 1
    figures = {"end_expected_inside": end_probability[~terminal].mean().item()}
    if terminal.any():
        figures["end_expected_at_end"] = end_probability[terminal].mean().item()
    return figures
