"""Measure a run's curves: their recent values, first values and extremes."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from dreamer.config.load import Config
from dreamer.tools.curves import Curves

RECENT = 1 / 3  # the last part of a curve, which counts as recent
ROUNDING = 1e-6  # relative rounding error of a mean of losses in float32
SHORTEST = 3  # recent points at least, if the curve has that many


def measure_curves(curves: Curves, settings: Config) -> dict[str, Any]:
    """Return figures of the curves, {name: number}, without those whose curve is missing.

    settings: the section `parameters.dreamer` of the run's configuration.

    Each tag's own name has the median of its recent values. Some tags also have their first, largest or smallest value.
    "eval/peak" is the largest median of three evaluations in a row: a single good evaluation may be luck.
    """
    values = {tag: list(points.values()) for tag, points in curves.items() if points}
    figures: dict[str, Any] = {tag: median(recent_values(points)) for tag, points in values.items()}
    returns = values.get("eval/return", [])
    if returns:
        figures |= {"evaluations": len(returns), "eval/best": max(returns), "eval/first": returns[0]}
    if len(returns) >= SHORTEST:
        starts = range(len(returns) - SHORTEST + 1)
        figures["eval/peak"] = max(median(returns[start : start + SHORTEST]) for start in starts)
    if "loss/model" in values:
        points = values["loss/model"]
        figures |= {"reports": len(points), "loss/model/first": points[0], "loss/model/least": min(points)}
        figures["loss/model/worst"] = max(recent_values(points))
        figures |= measure_kl_part(curves, settings)
    if "behavior/value" in values:
        points = values["behavior/value"]
        figures["behavior/value/before"] = median(points[: max(1, len(points) // 2)])
    first_returns = random_returns(curves)
    if first_returns:
        figures["random_return"] = sum(first_returns) / len(first_returns)
    return figures


def measure_kl_part(curves: Curves, settings: Config) -> dict[str, float]:
    """Return the KL's part of the model's loss (the loss minus its other parts, divided by the KL's scale), and the
    rounding error of that part."""
    other_losses = {"loss/reconstruction": 1.0, "loss/reward": 1.0, "loss/continue": settings.continue_scale}
    scale = settings.kl_divergence_scale
    if settings.kl_dynamics_scale is not None and settings.kl_representation_scale is not None:
        scale *= settings.kl_dynamics_scale + settings.kl_representation_scale
    if not scale or not all(tag in curves for tag in other_losses):
        return {}
    parts = []
    for steps, loss in curves["loss/model"].items():
        other_loss = sum(weight * curves[tag].get(steps, 0.0) for tag, weight in other_losses.items())
        parts.append((loss - other_loss) / scale)
    rounding = ROUNDING * max(abs(loss) for loss in recent_values(list(curves["loss/model"].values()))) / scale
    return {"kl_part": median(recent_values(parts)), "kl_part/rounding": rounding}


def recent_values(points: Sequence[float]) -> Sequence[float]:
    """Return the last third of the values of a curve, and at least three."""
    return points[-max(SHORTEST, round(len(points) * RECENT)) :]


def random_returns(curves: Mapping[str, Mapping[int, float]]) -> list[float]:
    """Return the returns of the episodes that were collected before the first update."""
    first_update = min(curves.get("loss/model", {}), default=None)
    if first_update is None:
        return []
    return [value for steps, value in curves.get("train/return", {}).items() if steps <= first_update]
