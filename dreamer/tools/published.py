"""Published learning curves from a CSV file, and which of them may stand beside the curves of runs."""

import math
import sys

import pandas as pd

from dreamer.errors import ConfigError

MADE_FROM = ["observations", "action_repeat"]  # what has to be the same for curves to be compared; empty: any
POINT = ["env_steps", "mean", "std", "seeds"]
COLUMNS = ["method", "task", *MADE_FROM, *POINT]  # of every frame of curves, a row for each point
RANDOM = "random actions"  # of the reference: no matter after how many env steps; its seeds are episodes


def read_reference(path, methods=None):
    """Published curves of these methods or of all; none without a path."""
    if path is None:
        return pd.DataFrame(columns=COLUMNS)
    try:
        lines = pd.read_csv(path, header=None, names=COLUMNS, dtype=str, skip_blank_lines=False)
    except ValueError as error:  # what pandas says does not name the file
        raise ConfigError(f"{path}: not readable as CSV: {error}") from None
    if lines[:1].values.tolist() != [COLUMNS]:
        raise ConfigError(f"{path}: its first line should be {','.join(COLUMNS)}")
    lines = lines[1:].dropna(how="all")
    wrong = pd.Series(False, lines.index)
    for column in ["action_repeat", *POINT]:
        numbers = pd.to_numeric(lines[column], errors="coerce")
        wrong |= numbers.isna() & lines[column].notna()
        lines[column] = numbers
    wrong |= lines[["method", "task", *POINT]].isna().any(axis=1)
    wrong |= ~lines["observations"].isin(["pixels", "state", math.nan])
    for line in lines.index[wrong]:
        raise ConfigError(f"{path}: line {line + 1} is not {','.join(COLUMNS)}")
    known = sorted(lines["method"].unique())
    if unknown := set(methods or ()) - set(known):
        raise ConfigError(f"{path}: no method {', '.join(unknown)}; there is: {', '.join(known)}")
    return lines[lines["method"].isin([*methods, RANDOM] if methods else known)].sort_values(["method", "env_steps"])


def made_from(settings):
    """MADE_FROM of a run, {column: value}; settings: as from `read_curve_settings`."""
    observations = "pixels" if settings["environment.from_pixels"] == "True" else "state"
    repeat = pd.to_numeric(settings["environment.frame_skip"], errors="coerce")
    return {"observations": observations, "action_repeat": repeat}


def is_alike(one, other):
    """Whether two rows of curves come from the same observations at the same action repeat, as far as they say."""
    return all(one[key] == other[key] or pd.isna(one[key]) or pd.isna(other[key]) for key in MADE_FROM)


def is_like_any(point, curves):
    """Whether a published point is made as one of the curves of its task is."""
    return any(is_alike(point, curve) for _, curve in curves[curves["task"] == point["task"]].iterrows())


def unlike(point, curves):
    """For a legend: what a published point is made from, as text, if any of the curves is made from something else."""
    curves = curves.drop_duplicates("method")
    return "" if all(is_alike(point, curve) for _, curve in curves.iterrows()) else f", {describe(point)}"


def describe(row):
    """MADE_FROM of a row of curves, as text."""
    repeat = "" if pd.isna(row["action_repeat"]) else f"action repeat {row['action_repeat']:.0f}"
    return ", ".join(filter(None, ["" if pd.isna(row["observations"]) else row["observations"], repeat]))


def comparable(published, curves, asked):
    """Published curves that are made as one of the curves of their task, and those of methods that were asked for. One
    line on stderr names the others."""
    curves = curves.drop_duplicates(["task", "method"])
    published = published[published["task"].isin(curves["task"])]
    kept = [point["method"] in (asked or ()) or is_like_any(point, curves) for _, point in published.iterrows()]
    kept = pd.Series(kept, published.index, dtype=bool)
    others = published[~kept].drop_duplicates(["method", "task", *MADE_FROM])
    if not others.empty:
        names = (f"{point['method']} of {point['task']} ({describe(point)})" for _, point in others.iterrows())
        text = "made from other observations or at another action repeat than the runs"
        print(f"left out: {', '.join(names)}: {text}; --method draws it", file=sys.stderr)
    return published[kept]
