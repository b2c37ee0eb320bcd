"""Read published learning curves from a CSV file, and choose those that are comparable with the curves of runs."""

import math
import sys
from collections.abc import Mapping, Sequence

import pandas as pd

from dreamer.errors import ConfigError

CONDITIONS = ["observations", "action_repeat"]  # comparable curves have equal ones; an empty cell equals any
POINT = ["env_steps", "mean", "std", "seeds"]
COLUMNS = ["method", "task", *CONDITIONS, *POINT]  # of a DataFrame of curves, which has a row for each point
RANDOM = "random actions"  # a method whose points hold at any number of env steps; its "seeds" are episodes


def read_reference(path: str | None, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the published curves of these methods and of random actions, or all; no curves without a path.

    Raises ConfigError if the file is not such a table or lacks a method.
    """
    if path is None:
        return pd.DataFrame(columns=COLUMNS)
    try:
        lines = pd.read_csv(path, header=None, names=COLUMNS, dtype=str, skip_blank_lines=False)
    except ValueError as error:  # pandas' message does not name the file
        raise ConfigError(f"{path}: not readable as CSV: {error}") from None
    if lines[:1].values.tolist() != [COLUMNS]:
        raise ConfigError(f"{path}: expected the first line {','.join(COLUMNS)}")
    lines = lines[1:].dropna(how="all")
    is_invalid = pd.Series(False, lines.index)
    for column in ["action_repeat", *POINT]:
        numbers = pd.to_numeric(lines[column], errors="coerce")
        is_invalid |= numbers.isna() & lines[column].notna()
        lines[column] = numbers
    is_invalid |= lines[["method", "task", *POINT]].isna().any(axis=1)
    is_invalid |= ~lines["observations"].isin(["pixels", "state", math.nan])
    for line in lines.index[is_invalid]:
        raise ConfigError(f"{path}: line {line + 1}: expected {','.join(COLUMNS)}")
    known_methods = sorted(lines["method"].unique())
    unknown_methods = set(methods or ()) - set(known_methods)
    if unknown_methods:
        raise ConfigError(f"{path}: no method {', '.join(unknown_methods)}; there is: {', '.join(known_methods)}")
    wanted = [*methods, RANDOM] if methods else known_methods
    return lines[lines["method"].isin(wanted)].sort_values(["method", "env_steps"])


def conditions_of(settings: Mapping[str, str]) -> dict[str, object]:
    """Return {column: value} of a run for the columns CONDITIONS. settings: from `curve_settings`."""
    observations = "pixels" if settings["environment.from_pixels"] == "True" else "state"
    repeat = pd.to_numeric(settings["environment.frame_skip"], errors="coerce")
    return {"observations": observations, "action_repeat": repeat}


def point_reached(points: pd.DataFrame, env_steps: float) -> pd.Series:
    """Return the last point of a published curve up to these env steps, or its first point if there is none."""
    reached = points[points["env_steps"] <= env_steps]
    return points.iloc[0] if reached.empty else reached.iloc[-1]


def is_comparable(first: pd.Series, second: pd.Series) -> bool:
    """Return whether two points have the same observations and action repeat; an unknown value matches any."""
    for column in CONDITIONS:
        is_known = not pd.isna(first[column]) and not pd.isna(second[column])
        if is_known and first[column] != second[column]:
            return False
    return True


def is_comparable_with_any(point: pd.Series, curves: pd.DataFrame) -> bool:
    """Return whether a published point is comparable with one of the curves of its task."""
    curves_of_task = curves[curves["task"] == point["task"]]
    return any(is_comparable(point, curve) for _, curve in curves_of_task.iterrows())


def differing_conditions(point: pd.Series, curves: pd.DataFrame) -> str:
    """Return a point's observations and action repeat, for a legend, or "" if all of the curves have the same."""
    curves = curves.drop_duplicates("method")
    if all(is_comparable(point, curve) for _, curve in curves.iterrows()):
        return ""
    return f", {describe_conditions(point)}"


def describe_conditions(point: pd.Series) -> str:
    """Return the observations and the action repeat of a point as text, as far as they are known."""
    parts = []
    if not pd.isna(point["observations"]):
        parts.append(point["observations"])
    if not pd.isna(point["action_repeat"]):
        parts.append(f"action repeat {point['action_repeat']:.0f}")
    return ", ".join(parts)


def select_comparable(
    published: pd.DataFrame, curves: pd.DataFrame, requested_methods: Sequence[str] | None
) -> pd.DataFrame:
    """Return the published curves that are comparable with a curve of their task, and all curves of
    `requested_methods`. Print the others in one line on stderr."""
    curves = curves.drop_duplicates(["task", "method"])
    published = published[published["task"].isin(curves["task"])]
    is_kept = pd.Series(True, published.index, dtype=bool)
    for index, point in published.iterrows():
        is_requested = point["method"] in (requested_methods or ())
        is_kept[index] = is_requested or is_comparable_with_any(point, curves)
    excluded = published[~is_kept].drop_duplicates(["method", "task", *CONDITIONS])
    if not excluded.empty:
        names = []
        for _, point in excluded.iterrows():
            names.append(f"{point['method']} of {point['task']} ({describe_conditions(point)})")
        reason = "made from other observations or at another action repeat than the runs"
        print(f"left out: {', '.join(names)}: {reason}; --method draws it", file=sys.stderr)
    return published[is_kept]
