"""Judge the world model: does it learn at all, does its latent state hold information, does it predict?

A share is the predicted share of a variance: 1 is perfect, 0 as good as the mean.
"""

from dreamer.config.load import Config
from dreamer.tools.explain.verdict import ALARM, FINE, NOTE, Figures, Verdict, has_figures, settings_of
from dreamer.tools.explain.verdicts.data import has_enough_updates

# Largest update relative to a weight's usual size; papers have 0.2 to 1 %, quick starts up to 2 %.
MAX_RELATIVE_UPDATE = 0.05
MAX_RISE = 0.5  # the loss must not rise again by this share of its fall …
MIN_FALL = 0.2  # … where the fall counts as at least this share of the loss: an explorer's new data raise it by 5 %
MAX_DEAD_SHARE = 0.9  # largest healthy share of components or groups without information
MIN_KL = 0.1  # nats of KL below which the latent state is not used
FLOOR_FACTOR = 1.2  # a KL below this multiple of the free nats is at its floor …
MIN_PREDICTED_AT_FLOOR = 0.9  # … and then at least this share of rewards and observations must be predicted
MIN_RECONSTRUCTED, GOOD_RECONSTRUCTED = 0.2, 0.5  # alarm and note below; healthy runs: pixels 0.3 early, vectors 0.9
STILL_TOLERANCE = 0.2  # a one-step prediction may be worse than an unchanged observation by this share
MIN_PREDICTED = 0.35  # least one-step prediction, as part of the reconstructed share; healthy: 0.5 (pixels) to 1
MIN_REWARD_SHARE = 0.5  # least predicted share of the rewards
SPARSE = 0.95  # share of steps without a reward, above which a low share is no alarm yet
MIN_END_PROBABILITY = 0.5  # least predicted probability of an end where the task ends


def learning_rate(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the learning rates fit the weights, and whether the model's loss stays down."""
    parts = [part for part in ("model", "actor", "critic") if f"rate/{part}" in figures]
    if not parts:
        return None
    worst = max(parts, key=lambda part: figures[f"rate/{part}"])
    name = "learning-rate"
    rate = figures[f"rate/{worst}"]
    key = f"{worst}_learning_rate={settings_of(config)[f'{worst}_learning_rate']:g}"
    text = f"an update moves a weight of the {worst} by up to {rate:.2%} of its usual size"
    advice = f"the steps are too large: lower parameters.dreamer.{key}, tenfold at first"
    if rate > MAX_RELATIVE_UPDATE:
        return Verdict(name, ALARM, text, advice)
    if has_figures(figures, "loss/model/first", "loss/model/least", "loss/model/worst") and has_enough_updates(figures):
        first, lowest, recent = (figures[f"loss/model/{which}"] for which in ("first", "least", "worst"))
        text += f"; the model's loss fell from {first:.5g} to {lowest:.5g}, lately up to {recent:.5g}"
        if recent - lowest > MAX_RISE * max(first - lowest, MIN_FALL * abs(lowest)):
            return Verdict(name, ALARM, text, "the loss rises again: lower parameters.dreamer.model_learning_rate")
    return Verdict(name, FINE, text)


def latent(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the latent state holds information about the observations."""
    if not has_figures(figures, "kl", "dead", "groups") or not has_enough_updates(figures):
        return None
    name = "latent"
    settings = settings_of(config)
    text = f"KL {figures['kl']:.3g} nats ({settings.free_nats:g} free); {figures['dead']:.0%} of {figures['groups']} "
    text += "components are dead"
    if "latent/prior_entropy" in figures:
        text += f"; entropy {figures['latent/posterior_entropy']:.3g} nats, prior {figures['latent/prior_entropy']:.3g}"
    is_at_floor = figures.get("loss/kl", figures["kl"]) <= FLOOR_FACTOR * settings.free_nats
    is_poorly_predicted = min(figures.get("reward", 1), figures.get("reconstruction", 1)) < MIN_PREDICTED_AT_FLOOR
    if figures["dead"] < MAX_DEAD_SHARE and figures["kl"] > MIN_KL and not (is_at_floor and is_poorly_predicted):
        return Verdict(name, FINE, text)
    scale = settings.kl_divergence_scale
    if is_at_floor:
        text += "; the KL is at its floor, and rewards or observations are not in the latent state"
    advice = f"the KL outweighs what is predicted: lower parameters.dreamer.kl_divergence_scale={scale:g}"
    if settings.kl_representation_scale is not None:
        advice += f" or kl_representation_scale={settings.kl_representation_scale:g}"
    return Verdict(name, ALARM, text, advice)


def reconstruction(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the moving components of observations can be reconstructed from the latent state."""
    if not has_figures(figures, "reconstruction") or not has_enough_updates(figures):
        return None
    name = "reconstruction"
    share = figures["reconstruction"]
    text = f"{share:.1%} of what moves is reconstructed ({figures['moving']:.0%} of the components move)"
    if share > GOOD_RECONSTRUCTED:
        return Verdict(name, FINE, text)
    advice = "small or rare objects are lost: lower kl_divergence_scale, or enlarge the encoder and decoder"
    return Verdict(name, ALARM if share < MIN_RECONSTRUCTED else NOTE, text, advice)


def dynamics(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the model predicts the effect of actions better than an observation that stays unchanged."""
    if not has_figures(figures, "open_loop", "still", "reconstruction") or not has_enough_updates(figures):
        return None
    name = "dynamics"
    predicted = figures["open_loop"]
    still = figures["still"]
    text = f"predicted {predicted[0]:.0%} one step ahead and {predicted[-1]:.0%} {len(predicted)} steps ahead; "
    text += f"if nothing moved: {still[0]:.0%} and {still[-1]:.0%}"
    reconstructed = figures["reconstruction"]
    if predicted[0] > max(MIN_PREDICTED * reconstructed, min(still[0], reconstructed) - STILL_TOLERANCE):
        return Verdict(name, FINE, text)
    advice = "do the stored observations follow from the stored actions, in this order? else train longer"
    return Verdict(name, ALARM, text, advice)


def reward(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the reward model predicts the stored rewards."""
    if not has_figures(figures, "reward") or not has_enough_updates(figures):
        return None
    name = "reward"
    share = figures["reward"]
    text = f"{share:.1%} of the rewards' variance is predicted"
    loss = figures.get("loss/reward")
    if loss is not None and settings_of(config).reward.distribution == "normal":
        text += f"; the loss is {loss:.3f}, at least 0.919"
    if share > MIN_REWARD_SHARE:
        return Verdict(name, FINE, text)
    if figures.get("reward_zeros", 0) > SPARSE:
        return Verdict(name, NOTE, text, "rewards are rare: more data, or exploration")
    advice = "can the reward be predicted from the observation? if so, train longer, or with more updates (see data)"
    return Verdict(name, ALARM, text, advice)


def ends(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the model predicts the task's end where it comes."""
    name = "ends"
    settings = settings_of(config)
    if not has_figures(figures, "terminations"):
        return None
    if not settings.use_continue_flag:
        if figures["terminations"] == 0:
            return None
        text = f"{figures['terminations']:.0%} of the episodes end by the task, which the model does not learn"
        return Verdict(name, ALARM, text, "parameters.dreamer.use_continue_flag=True")
    if not has_figures(figures, "end_expected_inside", "end_expected_at_end") or not has_enough_updates(figures):
        return None
    at_end, inside = figures["end_expected_at_end"], figures["end_expected_inside"]
    text = f"the predicted probability of an end is {at_end:.0%} where the task ends, {inside:.1%} elsewhere"
    if at_end > MIN_END_PROBABILITY:
        return Verdict(name, FINE, text)
    return Verdict(name, NOTE, text, "the task's end is not predicted: train longer, or raise continue_scale")
