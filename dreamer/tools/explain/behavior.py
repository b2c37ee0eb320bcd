"""Measure actor and critic on the newest episodes: imagined rewards and values against what the episodes brought.

Shapes: T time, A action size, F feature size.
"""

from typing import Any

import numpy as np
import torch

from dreamer.algorithms.prediction import observe
from dreamer.modules.rssm import State
from dreamer.replay.step import Batch
from dreamer.tools.explain.subject import Subject

EPISODES = 4  # newest ones
MOST = 500  # steps of one
SAMPLES = 16  # of each action distribution
SATURATED = 0.98  # absolute value of an action above which it is at an end of its range


@torch.no_grad()
def measure_behavior(subject: Subject) -> dict[str, Any]:
    """Return figures of actor and critic, {name: number}, without those that cannot be measured."""
    figures: list[dict[str, float]] = []
    for episode in [episode for episode in subject.episodes() if len(episode) > 1][-EPISODES:]:
        batch = subject.whole(episode, MOST)
        _, posterior = observe(subject.networks["model"], batch)
        figures.append(
            measure_actor(subject, posterior)
            | measure_values(subject, batch, posterior)
            | measure_imagination(subject, batch, posterior)
            | measure_continues(subject, batch, posterior)
        )
    names = {name for each in figures for name in each}
    return {name: float(np.mean([each[name] for each in figures if name in each])) for name in sorted(names)}


def measure_actor(subject: Subject, posterior: State) -> dict[str, float]:
    """Return the actor's spread and the share of its actions at the ends of the range; {} if the actions are of both
    kinds, discrete and continuous."""
    actor = subject.networks["collector"]
    policy = actor(posterior.feature[0])
    if actor.discrete:
        uniform = sum(group.count * np.log(group.classes) for group in actor.groups)
        return {"actor_spread": policy.entropy().mean().item() / max(uniform, 1e-9)}  # 1: uniform
    if not actor.continuous:
        return {}
    actions = torch.stack([policy.sample() for _ in range(SAMPLES)])
    at_end = (policy.mode.abs() > SATURATED).float().mean().item()
    return {"actor_spread": actions.std(0).mean().item(), "actor_saturated": at_end}


def measure_values(subject: Subject, batch: Batch, posterior: State) -> dict[str, float]:
    """Return the critic's mean value of the states and the mean discounted return that followed them.

    The return is bootstrapped from the critic where the time limit ended the episode.
    """
    if "critic" not in subject.networks:
        return {}
    value = subject.networks["critic"](posterior.feature[0]).mean
    reward, terminal = batch.reward[0], batch.is_terminal[0]
    if subject.settings.reward_transform == "tanh":
        reward = reward.tanh()
    gamma = subject.settings.discount
    following = value[-1] * (1 - terminal[-1]) if subject.config.version == 3 else value[-1]
    returns = [following]
    for t in range(len(reward) - 2, -1, -1):
        if subject.config.version == 3:  # v(s_t) begins with r_{t+1}
            following = reward[t + 1] + gamma * (1 - terminal[t + 1]) * following
        else:
            following = reward[t] + gamma * (1 - terminal[t]) * following
        returns.append(following)
    found = torch.stack(returns[::-1])
    return {"value": value.mean().item(), "return": found.mean().item(), "return_std": found.std().item()}


def measure_imagination(subject: Subject, batch: Batch, posterior: State) -> dict[str, float]:
    """Return the mean reward of imagined steps from states of the episode, and of the steps that really followed."""
    horizon = min(subject.settings.horizon_length, batch.reward.shape[1] - 1)
    model, actor = subject.networks["model"], subject.networks["actor"]
    starts = range(0, batch.reward.shape[1] - horizon, horizon)
    state = posterior.map(lambda part: part[0, list(starts)])
    rewards = []
    for _ in range(horizon):
        state = model.rssm.imagine_step(state, actor(state.feature).sample())
        rewards.append(model.reward_model(state.feature).mean)
    actual = [batch.reward[0, start + 1 : start + 1 + horizon] for start in starts]
    got = torch.stack(actual)
    if subject.settings.reward_transform == "tanh":
        got = got.tanh()
    return {"imagined_reward": torch.stack(rewards).mean().item(), "actual_reward": got.mean().item()}


def measure_continues(subject: Subject, batch: Batch, posterior: State) -> dict[str, float]:
    """Return the mean predicted probability that the task ends, at steps where it does and where it does not."""
    model = subject.networks["model"].continue_model
    if model is None:
        return {}
    settings = subject.settings
    target = settings.discount if settings.discount_in_continue else 1.0
    ends = (1 - (model(posterior.feature[0]).mean / target).clamp(max=1)).clamp(min=0)
    terminal = batch.is_terminal[0] == 1
    figures = {"end_expected_inside": ends[~terminal].mean().item()}
    if terminal.any():
        figures["end_expected_at_end"] = ends[terminal].mean().item()
    return figures
