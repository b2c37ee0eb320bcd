"""Measure the stored steps alone: rewards, episodes, and the collecting policy's actions."""

from typing import Any

import numpy as np

from dreamer.modules.actor import Actor
from dreamer.tools.explain.subject import Subject

NEWEST = 10  # episodes by which the collecting policy is judged


def measure_steps(subject: Subject) -> dict[str, Any]:
    """Return figures of the stored steps, {name: number}, without those that are not known."""
    scalars = subject.scalars
    inside = scalars["is_first"] == 0
    reward = scalars["reward"][inside]
    lengths = [len(episode) - 1 for episode in subject.episodes()]
    figures: dict[str, Any] = {"steps": len(subject.replay), "collected": subject.collected}
    if len(reward):
        figures |= {"reward_mean": reward.mean(), "reward_std": reward.std(), "reward_max": np.abs(reward).max()}
        figures["reward_zeros"] = np.mean(reward == 0)
    if lengths:
        figures |= {"episodes": len(lengths), "episode_length": np.mean(lengths)}
        figures["terminations"] = scalars["is_terminal"].sum() / len(lengths)
        figures["first_steps_wrong"] = wrong_first_steps(scalars)
        figures |= measure_actions(subject)
    return figures


def wrong_first_steps(scalars: dict[str, np.ndarray]) -> float:
    """Return the fraction of episodes whose first step has an action or a reward, although no action led to it."""
    first = scalars["is_first"] == 1
    has = scalars["action"][first].any(1) | (scalars["reward"][first] != 0)
    return float(has.mean()) if len(has) else 0.0


def measure_actions(subject: Subject) -> dict[str, float]:
    """Return the number of continuous actions in the newest episodes, and the share at the ends of the range, where
    exploration noise is clipped."""
    count = min(NEWEST, subject.iteration * subject.settings.num_interaction_episodes)  # not the seed episodes
    episodes = subject.episodes()[-count:]
    start = episodes[0].start - subject.steps.start
    newest = {name: part[start:] for name, part in subject.scalars.items()}
    action = newest["action"][newest["is_first"] == 0]
    actor: Actor = subject.networks["actor"]
    if not len(action) or not actor.continuous:
        return {}
    at_edge = np.abs(action) == 1
    return {"actions": at_edge.size, "actions_at_edge": float(at_edge.mean())}
