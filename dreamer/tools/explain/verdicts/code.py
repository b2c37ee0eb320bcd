"""Judge changed code and imported data: do the losses and the replay match the configuration?"""

import math

from dreamer.config.load import Config
from dreamer.tools.explain.verdict import ALARM, FINE, Figures, Verdict, has_figures, settings_of

MIN_ADVANTAGE = 0.02  # share of the rewards' variance by which another step's reward is predicted better, for an alarm
MIN_PREDICTED = 0.5  # share of the other step's rewards, below which the model has only begun to learn
MIN_FACTOR = 3  # alarm if actions at the ends of the range are rarer by this factor than noise alone makes them
MIN_EXPECTED = 10  # expected actions at the ends; with fewer, their absence may be chance
KL_TOLERANCE = 0.001  # relative: above the rounding of means in float32, below what a clamp of each step adds
CLEAR_FACTOR = 1.5  # in units of the free nats: above it, they do not clamp the mean KL of a batch


def first_steps(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether stored episodes begin with the observation of `reset`."""
    if not has_figures(figures, "first_steps_wrong"):
        return None
    name = "first-frame"
    share = figures["first_steps_wrong"]
    if share == 0:
        return Verdict(name, FINE, "every stored episode begins with the first observation, without action or reward")
    text = f"{share:.0%} of the stored episodes begin with a step that has an action or a reward"
    advice = "the observation of `reset` is missing in the replay, but the agent acts on it: store it, too"
    return Verdict(name, ALARM, text, advice)


def reward_alignment(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether a state predicts the reward that was received with it."""
    if not has_figures(figures, "reward", "reward_next", "reward_before"):
        return None
    name = "reward-alignment"
    own_share = figures["reward"]
    for other, description in ("reward_next", "of the step after it"), ("reward_before", "of the step before it"):
        if figures[other] > max(MIN_PREDICTED, own_share + MIN_ADVANTAGE):
            shares = f"{figures[other]:.0%} of the variance, against {own_share:.0%}"
            text = f"a state predicts the reward {description} better than its own ({shares})"
            advice = "rewards and states are out of step: r_t belongs to the state that has seen a_t and o_t"
            return Verdict(name, ALARM, text, advice)
    return Verdict(name, FINE, "a state predicts its own reward best, not that of the step before or after it")


def stored_noise(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the stored actions have the exploration noise: clipped noise puts some at exactly -1 or 1."""
    noise, collects = settings_of(config).exploration_noise, settings_of(config).collect
    explores_randomly = config.algorithm == "plan2explore" and config.parameters.plan2explore.explorer == "random"
    if not has_figures(figures, "actions_at_edge", "actions") or noise <= 0 or explores_randomly or not collects:
        return None
    expected, actual = math.erfc(1 / noise / math.sqrt(2)), figures["actions_at_edge"]
    if expected * figures["actions"] < MIN_EXPECTED:
        return None
    name = "stored-noise"
    text = f"{actual:.1%} of the stored actions are -1 or 1, noise alone makes {expected:.1%}"
    if actual > expected / MIN_FACTOR:
        return Verdict(name, FINE, text)
    advice = f"exploration_noise={noise:g} is not in the replay: none is added, or the action is stored without it"
    return Verdict(name, ALARM, text, advice)


def free_nats(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the free nats clamp the KL in the loss as the configuration says."""
    settings = settings_of(config)
    if not has_figures(figures, "kl_part", "loss/kl") or settings.free_nats_per_step:
        return None
    name = "free-nats"
    kl_in_loss = figures["kl_part"]
    kl = figures["loss/kl"]
    if kl < CLEAR_FACTOR * settings.free_nats or figures.get("kl_part/rounding", 0) > KL_TOLERANCE * kl:
        return None
    text = f"the KL is {kl:.4g} nats and {kl_in_loss:.4g} in the loss"
    if kl_in_loss < kl * (1 + KL_TOLERANCE):
        return Verdict(name, FINE, text)
    advice = "free_nats clamp the KL of each step, not the mean; if that is intended, set free_nats_per_step=True"
    return Verdict(name, ALARM, text, advice)


def discount_weights(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether later imagined steps weigh less in the actor's loss (Dreamer)."""
    settings = settings_of(config)
    if not has_figures(figures, "loss/actor", "behavior/imagined_return", "behavior/entropy") or config.version != 1:
        return None
    if settings.actor_gradient != "dynamics" or settings.return_normalization or settings.use_continue_flag:
        return None
    count = settings.horizon_length - 1
    expected = sum(settings.discount**step for step in range(count)) / count
    objective = figures["behavior/imagined_return"] + settings.entropy_scale * figures["behavior/entropy"]
    if objective <= 0 or 1 - expected < 0.02:  # weighted and unweighted losses hardly differ
        return None
    name = "discount-weights"
    actual = -figures["loss/actor"] / objective
    text = f"the actor's loss is {actual:.3f} of the imagined return, discounted weights make it {expected:.3f}"
    if actual < 1 - (1 - expected) / 4:
        return Verdict(name, FINE, text)
    return Verdict(name, ALARM, text, "later imagined steps do not weigh less: are the losses' weights γ_1 … γ_{k-1}?")
