"""Draw the curves and predictions that the verdicts judge, with the verdicts beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamer.tools.curves import Curves
from dreamer.tools.explain.report import MARKS, most_likely_cause
from dreamer.tools.explain.verdict import ALARM, FINE, Figures, Verdict

PANELS: dict[str, tuple[str, ...]] = {  # title: tags that share an axis
    "returns": ("eval/return", "train/return"),
    "model's loss": ("loss/reward", "loss/kl"),
    "latent entropy, nats": ("latent/prior_entropy", "latent/posterior_entropy"),
    "imagination": ("behavior/imagined_return", "behavior/value"),
    "actor's entropy, nats": ("behavior/entropy",),
    "gradients before clipping": ("grad_norm/model", "grad_norm/actor", "grad_norm/critic"),
}


def draw_run(curves: Curves, figures: Figures, verdicts: Sequence[Verdict], title: str) -> Figure:
    """Return a figure: the curves, the prediction step by step, and the verdicts."""
    figure = Figure(figsize=(15, 7), layout="constrained")
    panels = figure.subplots(2, 4).flat
    for panel, (name, tags) in zip(panels, PANELS.items(), strict=False):
        draw_curves(panel, {tag: curves[tag] for tag in tags if tag in curves})
        panel.set(title=name, xlabel="env steps")
        panel.set_yscale("log" if name.startswith("gradients") else "linear")
    *_, prediction, text_panel = figure.axes
    draw_prediction(prediction, figures)
    write_verdicts(text_panel, verdicts)
    cause = most_likely_cause(verdicts)
    figure.suptitle(f"{title}: {cause.name if cause else 'nothing keeps it from learning'}")
    return figure


def draw_curves(panel: Axes, curves: Mapping[str, Mapping[int, float]]) -> None:
    """Draw curves against env steps."""
    for tag, points in curves.items():
        panel.plot(list(points), list(points.values()), ".-", markersize=3, label=tag)
    panel.grid(alpha=0.3)
    if curves:
        panel.legend(fontsize="x-small", frameon=False)


def draw_prediction(panel: Axes, figures: Figures) -> None:
    """Draw the predicted share of the observations, step by step, beside the share if nothing moved."""
    for name, label in ("open_loop", "predicted"), ("still", "if nothing moved"):
        shares: Any = figures.get(name, [])
        panel.plot(range(1, len(shares) + 1), shares, ".-", label=label)
    panel.set(title="observations explained", xlabel="agent steps ahead", ylim=(-0.5, 1.05))
    panel.grid(alpha=0.3)
    panel.legend(fontsize="x-small", frameon=False)


def write_verdicts(panel: Axes, verdicts: Sequence[Verdict]) -> None:
    """Write the verdicts' names, the alarms in red."""
    panel.axis("off")
    colors = {ALARM: "red", FINE: "green"}
    for index, verdict in enumerate(verdicts):
        height = 1 - index / max(1, len(verdicts))
        text = f"{MARKS[verdict.level]} {verdict.name}"
        panel.text(0, height, text, color=colors.get(verdict.level, "black"), va="top", family="monospace")
