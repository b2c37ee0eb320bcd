"""Check a run, in the order of causes: a part that learns from a faulty part is faulty, too."""

from dreamer.config.load import Config
from dreamer.tools.explain.verdict import Check, Figures, Verdict
from dreamer.tools.explain.verdicts import behavior, code, data, model

CHECKS: tuple[Check, ...] = (
    code.first_steps,
    code.stored_noise,
    code.free_nats,
    code.discount_weights,
    data.progress,
    data.reward_scale,
    data.reward_seen,
    data.replay_ratio,
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


def check_run(figures: Figures, config: Config) -> list[Verdict]:
    """Return all verdicts that the figures allow, in the order of causes."""
    verdicts = [check(figures, config) for check in CHECKS]
    return [verdict for verdict in verdicts if verdict is not None]
