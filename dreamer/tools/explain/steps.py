"""Measure the stored steps alone: rewards, episodes, and the collecting policy's actions."""

from typing import Any

import numpy as np

from dreamer.modules.actor import Actor
from dreamer.tools.explain.opened_run import OpenedRun

NEWEST = 10  # episodes by which the collecting policy is judged


def measure_steps(run: OpenedRun) -> dict[str, Any]:
    """Return figures of the stored steps, {name: number}, without those that are not known."""
    scalars = run.scalars
    has_action = scalars["is_first"] == 0
    reward = scalars["reward"][has_action]
    lengths = [len(episode) - 1 for episode in run.episodes()]
    figures: dict[str, Any] = {"steps": len(run.replay), "collected": run.collected}
    if len(reward):
        figures |= {"reward_mean": reward.mean(), "reward_std": reward.std(), "reward_max": np.abs(reward).max()}
        figures["reward_zeros"] = np.mean(reward == 0)
    if lengths:
        figures |= {"episodes": len(lengths), "episode_length": np.mean(lengths)}
        figures["terminations"] = scalars["is_terminal"].sum() / len(lengths)
        figures["first_steps_wrong"] = wrong_first_steps(scalars)
        figures |= measure_actions(run)
    return figures


def wrong_first_steps(scalars: dict[str, np.ndarray]) -> float:
    """Return the fraction of episodes whose first step has an action or a reward, although no action led to it."""
    is_first = scalars["is_first"] == 1
    is_wrong = scalars["action"][is_first].any(1) | (scalars["reward"][is_first] != 0)
    return float(is_wrong.mean()) if len(is_wrong) else 0.0


def measure_actions(run: OpenedRun) -> dict[str, float]:
    """Return the number of continuous actions in the newest episodes, and the share at the ends of the range, where
    exploration noise is clipped."""
    collected_episodes = run.iteration * run.settings.num_interaction_episodes // run.workers  # without seed episodes
    episodes = run.episodes()[-min(NEWEST, collected_episodes) :]
    start = episodes[0].start - run.steps.start
    newest = {name: part[start:] for name, part in run.scalars.items()}
    action = newest["action"][newest["is_first"] == 0]
    actor: Actor = run.networks["actor"]
    if not len(action) or not actor.continuous:
        return {}
    at_edge = np.abs(action) == 1
    return {"actions": at_edge.size, "actions_at_edge": float(at_edge.mean())}
