"""Format the result of a check: as a table for people, as plain values for programs, as a contact sheet."""

import math
import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from dreamer.envs.wrappers import show
from dreamer.tools.check.findings import HINT, NOTE, REFUSED, Finding
from dreamer.tools.check.play import Play, differs_at
from dreamer.tools.check.prediction import Prediction
from dreamer.training.program import PROGRAM
from dreamer.training.video import film_strip

WIDTH, NAME = 118, 12  # characters of a line, and of a row's name
TOLD = 6  # components of an action whose bounds are printed
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
    """Return (name, words) of what random play has shown. facts: of `play_facts`."""
    reward, episodes, returned = facts["reward"], facts["episodes"], facts["random_return"]
    rows = [(line[:NAME].strip(), line[NAME:]) for line in facts["observation"]["told"]]
    rows += [("action", line) for line in facts["action"]]
    if reward:
        told = f"{reward['low']:.4g} to {reward['high']:.4g} in an env step, mean {reward['mean']:.4g}"
        rows.append(("reward", f"{told}; {100 * reward['zeros']:.0f} % are 0, {reward['kinds']} different"))
    if episodes["count"]:
        span = f"{episodes['shortest']:,} to {episodes['longest']:,} env steps, mean {episodes['mean']:,.0f}"
        limit = f"; time limit {episodes['limit']:,}" if episodes["limit"] else "; no time limit known"
        ends = f"{episodes['terminated']} terminated, {episodes['truncated']} truncated"
        ends += f", {episodes['succeeded']} a success" if episodes["succeeded"] is not None else ""
        rows.append(("episodes", f"{episodes['count']}: {span}{limit}; {ends}"))
        spread = f"{returned['mean']:.4g} ± {returned['std']:.3g} ({returned['low']:.4g} to {returned['high']:.4g})"
        rows.append(("random", f"return {spread}"))
    rows.append(("seeds", "; ".join(seed_words(facts["seeds"]))))
    rows.append(("speed", f"{facts['env_steps_per_second']:,.0f} env steps/s in random play, on this machine"))
    return rows


def seed_words(seeds: dict[str, Any]) -> list[str]:
    """Return phrases on whether equal seeds give equal results."""
    words = []
    if seeds["compared"]:
        place = seeds["differ_at"]
        agree = f"agree for {counted(seeds['compared'], 'step')}" if place is None else f"differ from step {place} on"
        words.append(f"two environments with one seed {agree}")
    if seeds["resets_agree"] is not None:
        words.append(f"reset(seed=…) twice {'agrees' if seeds['resets_agree'] else 'differs'}")
    if seeds["resets"] > 1:
        words.append(f"{counted(seeds['starts'], 'different first observation')} in {seeds['resets']} episodes")
    return words


def counted(number: int, name: str) -> str:
    """Return a number and a name, in the plural unless the number is 1."""
    return f"{number:,} {name}" + ("s" if number != 1 else "")


def prediction_rows(prediction: Prediction) -> list[tuple[str, str]]:
    """Return rows (name, text) on a run's time and disk."""
    update = f"{1000 * prediction.update_seconds:,.0f} ms" if prediction.update_seconds < 1 else ""
    update = update or f"{prediction.update_seconds:,.1f} s"
    compiled = ", before it is compiled" if prediction.is_compiled else ""
    size = f"{prediction.parameters:,} parameters on {prediction.device}"
    span = duration(prediction.hours)
    if prediction.hours_at_limit > 1.2 * prediction.hours:
        span += f"; up to {duration(prediction.hours_at_limit)} if episodes reach their maximum length"
    work = f"{prediction.updates:,.0f} updates, {prediction.env_steps:,.0f} env steps"
    disk = f"{amount(prediction.replay_bytes)} of replay, {amount(prediction.checkpoint_bytes)} of checkpoints"
    return [("update", f"{update} (measured{compiled}); {size}"), ("run", f"{span}: {work}"), ("disk", disk)]


def duration(hours: float) -> str:
    """Return a time as text."""
    if hours < 1:
        return f"{60 * hours:.2g} minutes"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"


def amount(size: float) -> str:
    """Return a number of bytes as text."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return rows as lines of text. A name equal to that of the row before is left out."""
    lines, last = [], ""
    for name, words in rows:
        head = "" if name == last else name
        lines += textwrap.wrap(words, WIDTH, initial_indent=f"{head:{NAME}}", subsequent_indent=NAME * " ")
        last = name
    return lines


def next_steps(file: str, refuses: bool) -> list[str]:
    """Return a line with the command to run next. refuses: whether training would end with an error."""
    condition = "repair the error above, check again, then " if refuses else ""
    return [f"suggested   {file}: {condition}{PROGRAM} --config {shlex.quote(file)}"]


def play_facts(play: Play, again: Play | None) -> dict[str, Any]:
    """Return the results of random play as plain values, for JSON and for the table."""
    given = np.array(play.watched.rewards)
    totals = np.array([episode.total for episode in play.episodes])
    lengths = [episode.env_steps for episode in play.episodes]
    reward, returned, ended = {}, {}, {}
    if len(given):
        reward = {"low": float(given.min()), "high": float(given.max()), "mean": float(given.mean())}
        reward |= {"std": float(given.std()), "zeros": float((given == 0).mean()), "kinds": len(np.unique(given))}
    if lengths:
        returned = {"low": float(totals.min()), "high": float(totals.max())}
        returned |= {"mean": float(totals.mean()), "std": float(totals.std())}
        ended = {"shortest": min(lengths), "longest": max(lengths), "mean": float(np.mean(lengths))}
    told = [line for line in play.description if not line.startswith(HINT)]
    seen = {"told": told, "parts": [seen.summary() for seen in play.watched.parts]}
    compared = min(len(play.trace), len(again.trace)) if again else 0
    seeds = {"compared": compared, "differ_at": differs_at(play, again) if again else None}
    seeds |= {"resets_agree": play.resets_agree, "starts": len(set(play.starts)), "resets": len(play.starts)}
    ends = {"terminated": play.terminated, "truncated": len(lengths) - play.terminated, "limit": play.limit}
    ends["succeeded"] = succeeded(play)
    return {
        "observation": seen,
        "action": list(meanings(play.own.action)),
        "reward": reward,
        "episodes": {"count": len(lengths), **ended, **ends},
        "random_return": returned,
        "seeds": seeds,
        "env_steps_per_second": play.env_steps / max(play.seconds, 1e-9),
    }


def succeeded(play: Play) -> int | None:
    """Return how many episodes were a success; None if the environment does not report it."""
    known = [episode.success for episode in play.episodes if not math.isnan(episode.success)]
    return int(sum(known)) if known else None


def meanings(space: Any, name: str = "") -> list[str]:
    """Return lines on how an agent's actions map to the environment's. name: of the part of an action."""
    where = f"{name}: " if name else ""
    if isinstance(space, spaces.Dict):
        return [line for key, part in space.spaces.items() for line in meanings(part, f"{name}/{key}".lstrip("/"))]
    if isinstance(space, spaces.Tuple):
        return [line for place, part in enumerate(space) for line in meanings(part, f"{name}/{place}".lstrip("/"))]
    if isinstance(space, spaces.Discrete):
        return [f"{where}one of {space.n}, from {space.start} to {space.start + space.n - 1}: one-hot"]
    if isinstance(space, spaces.Box):
        low, high = np.ravel(space.low), np.ravel(space.high)
        if (low == low[0]).all() and (high == high[0]).all():
            return [f"{where}{len(low)} real: -1 means {low[0]:g}, 1 means {high[0]:g}"]
        pairs = [f"{a:g} to {b:g}" for a, b in zip(low[:TOLD], high[:TOLD], strict=True)]
        more = ", …" if len(low) > TOLD else ""
        return [f"{where}{len(low)} real, from -1 to 1, which mean: {', '.join(pairs)}{more}"]
    return [f"{where}{show(space)}: one-hot parts side by side"]


def contact_sheet(play: Play) -> np.ndarray | None:
    """Return frames of the first episode as a picture, uint8 (height, width, 3); None if there are none."""
    panels = {label: np.stack(frames) for label, frames in play.panels.items() if frames}
    if not panels:
        return None
    last = min(len(frames) for frames in panels.values()) - 1
    steps = sorted({round(step) for step in np.linspace(0, last, COLUMNS)})
    return film_strip(panels, steps)
