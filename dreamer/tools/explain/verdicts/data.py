"""Judge the data: the scale of rewards, whether there are rewards, and how often updates replay a stored step."""

from dreamer.config.load import Config
from dreamer.tools.explain.verdict import ALARM, FINE, NOTE, Figures, Verdict, has_figures, settings_of

MAX_REWARD, MIN_REWARD = 100.0, 0.01  # bounds of a step's reward that a Gaussian reward model with std 1 can learn
SPARSE = 0.99  # share of steps without a reward, above which rewards are sparse
MIN_REPLAYS, MAX_REPLAYS = 4.0, 4000.0  # healthy replays of a stored step; the papers' are between 16 and 1024
NEW_KL_RATIO = 3.0  # ratio of the newest episodes' KL to that of all, above which they are new to the model
MIN_UPDATES, MIN_UPDATES_FROM_PIXELS = 500, 1500  # updates before which a run cannot be judged


def has_enough_updates(figures: Figures) -> bool:
    """Return whether the networks have made enough updates to be judged."""
    min_updates = MIN_UPDATES_FROM_PIXELS if figures.get("pixels") else MIN_UPDATES
    return figures.get("updates", min_updates) >= min_updates


def progress(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the run has learned long enough to be judged."""
    if has_enough_updates(figures):
        return None
    min_updates = MIN_UPDATES_FROM_PIXELS if figures.get("pixels") else MIN_UPDATES
    text = f"{figures['updates']:,.0f} updates; learning is judged from {min_updates:,} updates on"
    return Verdict("progress", NOTE, text, "explain the run again later")


def reward_scale(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether the reward model can follow the size of the rewards."""
    if not has_figures(figures, "reward_max"):
        return None
    name = "reward-scale"
    settings = settings_of(config)
    largest = figures["reward_max"]
    text = f"the largest reward of an agent step is {largest:.3g}"
    bounded = settings.reward.distribution == "two_hot" or settings.reward_transform == "tanh"
    if largest == 0 or (settings.reward.distribution == "two_hot" and settings.agent.critic.distribution == "two_hot"):
        return Verdict(name, FINE, text)
    advice = "scale the rewards in the environment to about 1 a step, or take reward.distribution=two_hot and "
    advice += "agent.critic.distribution=two_hot (DreamerV3)"
    if largest > MAX_REWARD and not bounded:
        return Verdict(name, ALARM, f"{text}; the reward model can learn up to {MAX_REWARD:g}", advice)
    if largest < MIN_REWARD:
        return Verdict(name, ALARM, f"{text}; the reward model cannot distinguish rewards below {MIN_REWARD:g}", advice)
    return Verdict(name, FINE, text)


def reward_seen(figures: Figures, config: Config) -> Verdict | None:
    """Judge whether there are rewards to learn from."""
    if not has_figures(figures, "reward_max", "reward_zeros"):
        return None
    name = "reward-seen"
    zeros = figures["reward_zeros"]
    text = f"{zeros:.0%} of the stored steps have no reward"
    if figures["reward_max"] > 0 and zeros <= SPARSE:
        return Verdict(name, FINE, text)
    if figures["reward_max"] > 0:
        return Verdict(name, NOTE, text, "sparse rewards take more data")
    if config.algorithm == "plan2explore":
        return Verdict(name, NOTE, f"{text}: the explorer has not found any yet")
    advice = "nothing to learn from: more seed_episodes, more exploration_noise, or --config … plan2explore"
    return Verdict(name, ALARM, text, advice)


def replay_ratio(figures: Figures, config: Config) -> Verdict | None:
    """Judge how often updates replay a stored step."""
    if not has_figures(figures, "updates", "collected") or not has_enough_updates(figures):
        return None
    name = "data"
    settings = settings_of(config)
    ratio = figures["updates"] * settings.batch_size * settings.batch_length / figures["collected"]
    text = f"each stored step was replayed {ratio:.3g} times, {figures['collected']:,.0f} steps are stored"
    key = "train_ratio" if settings.train_ratio else "collect_interval"
    if has_figures(figures, "kl_newest", "kl"):
        text += f"; the KL is {figures['kl_newest']:.3g} nats in the newest episodes, {figures['kl']:.3g} in all"
    if ratio < MIN_REPLAYS:
        return Verdict(name, ALARM, text, f"too few updates for the data: raise parameters.dreamer.{key}")
    if ratio > MAX_REPLAYS:
        return Verdict(name, ALARM, text, f"too little data for the updates: lower parameters.dreamer.{key}")
    if figures.get("kl_newest", 0) > NEW_KL_RATIO * max(figures.get("kl", 0), 1.0):
        return Verdict(name, NOTE, text, "the newest episodes are still new to the model: collect more data")
    return Verdict(name, FINE, text)
