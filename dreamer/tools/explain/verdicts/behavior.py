"""Judge actor and critic: do their rewards and values match the episodes, and does the actor still explore?"""

import math

from dreamer.config.load import Config
from dreamer.tools.explain.verdict import ALARM, FINE, NOTE, Figures, Verdict, has_figures, settings_of
from dreamer.tools.explain.verdicts.data import has_enough_updates

MAX_LOOKAHEAD = 25.0  # episode lengths that the discount may look ahead; beyond it values only grow
MIN_STD = 0.05  # std of continuous actions, in [-1, 1], below which nothing new is tried
MIN_ENTROPY = 0.02  # the same for discrete actions: share of a uniform distribution's entropy
SETTLED_SHARE, NARROW_STD = 0.9, 0.2  # an actor has settled above this share of actions at the ends, below this std
MAX_REWARD_GAP = 1.0  # an imagined reward may exceed the actual one by this many std of the stored rewards
MAX_CRITIC_GAP = 0.3  # the critic may differ from the imagined return by this share of it
MAX_VALUE_GAP = 1.0  # values may differ from the return that followed by this share of it
MAX_NORM = 30.0  # largest healthy norm, in units of clip_grad; Adam undoes a constant factor, healthy runs reach 10
LEARNED_FACTOR = 1.2  # a run has learned above this multiple of the random return
FALLEN_SHARE = 0.75  # a return has fallen if it keeps less than this share of what was gained over random actions


def horizon(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the discount looks about as far ahead as episodes last."""
    if not has_figures(figures, "episode_length"):
        return None
    name = "horizon"
    discount = settings_of(config).discount
    length = figures["episode_length"]
    lookahead = 1 / max(1e-9, 1 - discount)
    text = f"discount {discount:g} looks {lookahead:,.0f} agent steps ahead, an episode has {length:,.0f}"
    if lookahead > MAX_LOOKAHEAD * length and figures.get("terminations", 0) < 0.5:
        suitable_discount = 1 - 1 / max(2.0, length)
        advice = f"values cannot settle: parameters.dreamer.discount={suitable_discount:.3g} or less"
        return Verdict(name, ALARM, text, advice)
    return Verdict(name, FINE, text)


def exploration(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the collecting policy still tries other actions."""
    if not has_figures(figures, "actor_spread"):
        return None
    name = "exploration"
    settings = settings_of(config)
    spread = figures["actor_spread"]
    noise = settings.exploration_noise
    if "actor_saturated" not in figures:  # discrete actions
        text = f"the actor's entropy is {spread:.0%} of that of random actions; {noise:.0%} are replaced"
        is_too_certain = spread < MIN_ENTROPY and noise == 0
    else:
        text = f"the actor's std is {spread:.2g}, the noise's {noise:g}; {figures['actor_saturated']:.0%} of its "
        text += "actions are at the ends of their range"
        is_too_certain = math.hypot(spread, noise) < MIN_STD
    if not is_too_certain:
        if figures.get("actor_saturated", 0) > SETTLED_SHARE and spread < NARROW_STD:
            return Verdict(name, NOTE, text, "the actor has settled at the ends of the range: raise entropy_scale")
        return Verdict(name, FINE, text)
    advice = "nothing new is tried: raise exploration_noise, entropy_scale or agent.actor.min_std"
    return Verdict(name, ALARM, text, advice)


def imagination(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether imagined rewards match those of the newest episodes."""
    if not has_figures(figures, "imagined_reward", "actual_reward", "reward_std") or config.algorithm == "plan2explore":
        return None  # the task's actor of Plan2Explore does not collect
    name = "imagination"
    imagined = figures["imagined_reward"]
    actual = figures["actual_reward"]
    text = f"the mean reward of a step is {imagined:.3g} in imagination and {actual:.3g} in the newest episodes"
    if has_figures(figures, "eval/return", "episode_length"):
        text += f", {figures['eval/return'] / figures['episode_length']:.3g} in evaluations"
    if not has_enough_updates(figures) or imagined - actual < MAX_REWARD_GAP * max(figures["reward_std"], 1e-9):
        return Verdict(name, FINE, text)
    advice = "the actor exploits errors of the model: more data (train_ratio or collect_interval down), or a shorter "
    return Verdict(name, ALARM, text, advice + "horizon_length")


def critic(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the critic keeps up with the imagined returns."""
    if not has_figures(figures, "behavior/value", "behavior/imagined_return") or not has_enough_updates(figures):
        return None
    name = "critic"
    value = figures["behavior/value"]
    imagined = figures["behavior/imagined_return"]
    text = f"values are {value:.4g}, imagined returns {imagined:.4g}"
    if abs(value - imagined) < MAX_CRITIC_GAP * max(abs(imagined), 1.0):
        return Verdict(name, FINE, text)
    return Verdict(name, ALARM, text, "the critic lags: raise critic_learning_rate, or bring the rewards to about 1")


def values(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the critic's values match the returns that followed in the newest episodes."""
    if not has_figures(figures, "value", "return", "return_std") or not has_enough_updates(figures):
        return None
    if config.algorithm == "plan2explore":
        return None
    name = "values"
    value = figures["value"]
    actual_return = figures["return"]
    text = f"the critic expects {value:.4g}, the newest episodes brought {actual_return:.4g} (discounted)"
    if abs(value - actual_return) < max(MAX_VALUE_GAP * abs(actual_return), 2 * figures["return_std"], 1.0):
        return Verdict(name, FINE, text)
    return Verdict(name, NOTE, text, "values do not match real returns: see imagination and horizon; collect more data")


def gradients(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether gradients are always clipped far below their norm."""
    name = "gradients"
    settings = settings_of(config)
    parts = [part for part in ("model", "actor", "critic") if f"grad_norm/{part}" in figures]
    if settings.optimizer == "laprop" or not parts or not has_enough_updates(figures):
        return None  # DreamerV3 clips each tensor by its weights, which changes no direction
    worst = max(parts, key=lambda part: figures[f"grad_norm/{part}"])
    norm, limit = figures[f"grad_norm/{worst}"], settings.clip_grad
    text = f"the largest norm is {norm:.3g}, of the {worst}; clip_grad is {limit:g}"
    if norm < MAX_NORM * limit:
        return Verdict(name, FINE, text)
    advice = f"its gradient is always clipped: bring the rewards to about 1 a step, or clip_grad={norm:.1g}"
    return Verdict(name, ALARM, text, advice)


def returns(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether recent evaluations are better than random actions and nearly as good as the best ones.

    This verdict is a result, not a cause.
    """
    if not has_figures(figures, "eval/return", "random_return"):
        return None
    name = "return"
    evaluation = figures["eval/return"]
    random_return = figures["random_return"]
    text = f"returns: recent evaluations {evaluation:.4g}, best {figures['eval/best']:.4g}, "
    text += f"seed episodes {random_return:.4g}"
    if figures["evaluations"] < 5:
        return Verdict(name, FINE, text)
    learned_return = random_return + (LEARNED_FACTOR - 1) * abs(random_return)
    peak = figures.get("eval/peak", evaluation)
    if peak > learned_return and evaluation - random_return < FALLEN_SHARE * (peak - random_return):
        advice = f"it has fallen: the median of three evaluations was {peak:.4g}; checkpoint-best.pt has the best actor"
        if settings_of(config).imagine_last:
            advice += "; imagine_last=null may keep it: the actor then learns from all replayed states"
        return Verdict(name, NOTE, text, advice)
    if evaluation > learned_return:
        return Verdict(name, FINE, text)
    return Verdict(name, NOTE, text, "not better than random actions yet")
