"""Format the result of a check: as a table for people, as plain values for programs, as a contact sheet."""

import math
import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from dreamer.envs.wrappers import show
from dreamer.tools.check.findings import HINT_PREFIX, NOTE, REFUSED, Finding
from dreamer.tools.check.play import Play, first_difference
from dreamer.tools.check.prediction import Prediction
from dreamer.training.program import PROGRAM
from dreamer.training.video import film_strip

WIDTH, NAME = 118, 12  # characters of a line, and of a row's name
MAX_BOUNDS = 6  # components of an action whose bounds are printed
COLUMNS = 12  # frames in the contact sheet


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Return lines of numbered findings, each with its advice."""
    lines = []
    for number, (level, what, advice) in enumerate(findings, 1):
        kind = {REFUSED: "error: ", NOTE: "note: "}.get(level, "")
        lines += textwrap.wrap(f"{kind}{what}", WIDTH, initial_indent=f"{number:3}. ", subsequent_indent="     ")
        if advice:
            lines += textwrap.wrap(advice, WIDTH, initial_indent="     → ", subsequent_indent="       ")
    return lines or ["nothing is wrong, as far as random play shows"]


def play_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return rows (name, text) on random play. facts: from `play_facts`."""
    reward, episodes, random_return = facts["reward"], facts["episodes"], facts["random_return"]
    rows = [(line[:NAME].strip(), line[NAME:]) for line in facts["observation"]["told"]]
    rows += [("action", line) for line in facts["action"]]
    if reward:
        text = f"{reward['low']:.4g} to {reward['high']:.4g} in an env step, mean {reward['mean']:.4g}"
        rows.append(("reward", f"{text}; {100 * reward['zeros']:.0f} % are 0, {reward['kinds']} different"))
    if episodes["count"]:
        lengths = f"{episodes['shortest']:,} to {episodes['longest']:,} env steps, mean {episodes['mean']:,.0f}"
        limit = f"; time limit {episodes['limit']:,}" if episodes["limit"] else "; no time limit known"
        ends = f"{episodes['terminated']} terminated, {episodes['truncated']} truncated"
        ends += f", {episodes['succeeded']} a success" if episodes["succeeded"] is not None else ""
        rows.append(("episodes", f"{episodes['count']}: {lengths}{limit}; {ends}"))
        text = f"return {random_return['mean']:.4g} ± {random_return['std']:.3g} "
        rows.append(("random", f"{text}({random_return['low']:.4g} to {random_return['high']:.4g})"))
    rows.append(("seeds", "; ".join(seed_phrases(facts["seeds"]))))
    rows.append(("speed", f"{facts['env_steps_per_second']:,.0f} env steps/s in random play, on this machine"))
    return rows


def seed_phrases(seeds: dict[str, Any]) -> list[str]:
    """Return phrases on whether equal seeds give equal results."""
    phrases = []
    if seeds["compared"]:
        step = seeds["differ_at"]
        agree = f"agree for {pluralized(seeds['compared'], 'step')}" if step is None else f"differ from step {step} on"
        phrases.append(f"two environments with one seed {agree}")
    if seeds["resets_agree"] is not None:
        phrases.append(f"reset(seed=…) twice {'agrees' if seeds['resets_agree'] else 'differs'}")
    if seeds["resets"] > 1:
        phrases.append(f"{pluralized(seeds['starts'], 'different first observation')} in {seeds['resets']} episodes")
    return phrases


def pluralized(number: int, name: str) -> str:
    """Return a number and a name, in the plural unless the number is 1."""
    return f"{number:,} {name}" + ("s" if number != 1 else "")


def prediction_rows(prediction: Prediction) -> list[tuple[str, str]]:
    """Return rows (name, text) on a run's time and disk."""
    seconds = prediction.update_seconds
    update = f"{1000 * seconds:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"
    compiled = ", before it is compiled" if prediction.is_compiled else ""
    size = f"{prediction.parameters:,} parameters on {prediction.device}"
    time = format_hours(prediction.hours)
    if prediction.hours_at_limit > 1.2 * prediction.hours:
        time += f"; up to {format_hours(prediction.hours_at_limit)} if episodes reach their maximum length"
    counts = f"{prediction.updates:,.0f} updates, {prediction.env_steps:,.0f} env steps"
    disk = f"{format_bytes(prediction.replay_bytes)} of replay, "
    disk += f"{format_bytes(prediction.checkpoint_bytes)} of checkpoints"
    return [("update", f"{update} (measured{compiled}); {size}"), ("run", f"{time}: {counts}"), ("disk", disk)]


def format_hours(hours: float) -> str:
    """Return a time as text."""
    if hours < 1:
        return f"{60 * hours:.2g} minutes"
    if hours < 48:
        return f"{hours:.1f} hours"
    return f"{hours / 24:.1f} days"


def format_bytes(size: float) -> str:
    """Return a number of bytes as text."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return rows as lines of text. A name equal to that of the row before is left out."""
    lines, last = [], ""
    for name, text in rows:
        shown_name = "" if name == last else name
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"{shown_name:{NAME}}", subsequent_indent=NAME * " ")
        last = name
    return lines


def next_steps(file: str, refuses: bool) -> list[str]:
    """Return a line with the command to run next. refuses: whether training would end with an error."""
    condition = "repair the error above, check again, then " if refuses else ""
    return [f"suggested   {file}: {condition}{PROGRAM} --config {shlex.quote(file)}"]


def play_facts(play: Play, second_play: Play | None) -> dict[str, Any]:
    """Return the results of random play as plain values, for JSON and for the table."""
    rewards = np.array(play.recorder.rewards)
    returns = np.array([episode.total for episode in play.episodes])
    lengths = [episode.env_steps for episode in play.episodes]
    reward_facts, return_facts, length_facts = {}, {}, {}
    if len(rewards):
        reward_facts = {
            "low": float(rewards.min()),
            "high": float(rewards.max()),
            "mean": float(rewards.mean()),
            "std": float(rewards.std()),
            "zeros": float((rewards == 0).mean()),
            "kinds": len(np.unique(rewards)),
        }
    if lengths:
        return_facts = {
            "low": float(returns.min()),
            "high": float(returns.max()),
            "mean": float(returns.mean()),
            "std": float(returns.std()),
        }
        length_facts = {"shortest": min(lengths), "longest": max(lengths), "mean": float(np.mean(lengths))}
    description = [line for line in play.description if not line.startswith(HINT_PREFIX)]
    observation_facts = {"told": description, "parts": [part.summary() for part in play.recorder.parts]}
    compared_steps = min(len(play.trace), len(second_play.trace)) if second_play else 0
    seed_facts = {
        "compared": compared_steps,
        "differ_at": first_difference(play, second_play) if second_play else None,
        "resets_agree": play.resets_agree,
        "starts": len(set(play.first_observations)),
        "resets": len(play.first_observations),
    }
    end_facts = {
        "terminated": play.terminated,
        "truncated": len(lengths) - play.terminated,
        "limit": play.time_limit,
        "succeeded": success_count(play),
    }
    return {
        "observation": observation_facts,
        "action": list(describe_action_mapping(play.env_spaces.action)),
        "reward": reward_facts,
        "episodes": {"count": len(lengths), **length_facts, **end_facts},
        "random_return": return_facts,
        "seeds": seed_facts,
        "env_steps_per_second": play.env_steps / max(play.seconds, 1e-9),
    }


def success_count(play: Play) -> int | None:
    """Return how many episodes were a success; None if the environment does not report it."""
    successes = [episode.success for episode in play.episodes if not math.isnan(episode.success)]
    return int(sum(successes)) if successes else None


def describe_action_mapping(space: Any, name: str = "") -> list[str]:
    """Return lines on how an agent's actions map to the environment's. name: the part of an action, "" for all."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space)
        lines = []
        for key, part in parts:
            lines += describe_action_mapping(part, f"{name}/{key}".lstrip("/"))
        return lines
    prefix = f"{name}: " if name else ""
    if isinstance(space, spaces.Discrete):
        return [f"{prefix}one of {space.n}, from {space.start} to {space.start + space.n - 1}: one-hot"]
    if isinstance(space, spaces.Box):
        low, high = np.ravel(space.low), np.ravel(space.high)
        if (low == low[0]).all() and (high == high[0]).all():
            return [f"{prefix}{len(low)} real: -1 means {low[0]:g}, 1 means {high[0]:g}"]
        bounds = [f"{minimum:g} to {maximum:g}" for minimum, maximum in zip(low, high, strict=True)]
        if len(bounds) > MAX_BOUNDS:
            bounds = [*bounds[:MAX_BOUNDS], "…"]
        return [f"{prefix}{len(low)} real, from -1 to 1, which mean: {', '.join(bounds)}"]
    return [f"{prefix}{show(space)}: one-hot parts side by side"]


def contact_sheet(play: Play) -> np.ndarray | None:
    """Return frames of the first episode as a picture, uint8 (height, width, 3); None if there are none."""
    panels = {label: np.stack(frames) for label, frames in play.panels.items() if frames}
    if not panels:
        return None
    last = min(len(frames) for frames in panels.values()) - 1
    steps = sorted({round(step) for step in np.linspace(0, last, COLUMNS)})
    return film_strip(panels, steps)
