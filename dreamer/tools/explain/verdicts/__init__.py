"""Judge a run, in the order of causes: a part that learns from a faulty part is faulty, too."""

from dreamer.config.load import Config
from dreamer.tools.explain.verdict import Figures, Judge, Verdict
from dreamer.tools.explain.verdicts import behavior, code, data, model

JUDGES: tuple[Judge, ...] = (
    code.first_steps,
    code.stored_noise,
    code.free_nats,
    code.discount_weights,
    data.progress,
    data.reward_scale,
    data.reward_seen,
    data.replayed,
    model.learning_rate,
    model.latent,
    model.reconstruction,
    model.dynamics,
    code.reward_alignment,
    model.reward,
    model.ends,
    behavior.horizon,
    behavior.exploration,
    behavior.imagination,
    behavior.critic,
    behavior.values,
    behavior.gradients,
    behavior.returns,
)


def judge(figures: Figures, config: Config) -> list[Verdict]:
    """Return all verdicts that the figures allow, in the order of causes."""
    found = [judged(figures, config) for judged in JUDGES]
    return [verdict for verdict in found if verdict is not None]
