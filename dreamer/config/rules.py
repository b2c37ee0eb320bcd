"""Find settings that do not go together, and settings that nothing reads.

Conditions read a flat configuration, {dotted key: value}. Keys in this file are under `parameters.dreamer`, unless they
begin with another section.
"""

from collections.abc import Iterable
from typing import Any

from dreamer.config.schema import PACKAGED_BENCHMARKS

SECTION = "parameters.dreamer."
OTHERS = ("algorithm", "version", "operation.", "environment.", "evaluation.", "parameters.")

# A key is read only where another one has one of these values.
READ_WHERE: dict[str, tuple[str, list[Any]]] = {
    "classes": ("latent", ["categorical"]),
    "unimix": ("latent", ["categorical"]),
    "rssm.transition_model.min_std": ("latent", ["gaussian"]),
    "rssm.representation_model.min_std": ("latent", ["gaussian"]),
    "rssm.recurrent_model.blocks": ("rssm.recurrent_model.cell", ["block_gru"]),
    "slow_critic_interval": ("slow_critic", ["target", "regularizer"]),
    "slow_critic_fraction": ("slow_critic", ["target", "regularizer"]),
    "weight_decay": ("optimizer", ["keras_adam"]),
    "warm_up": ("optimizer", ["laprop"]),
    "agc": ("optimizer", ["laprop"]),
    "adam_epsilon": ("optimizer", ["adam", "keras_adam"]),
    "clip_grad": ("optimizer", ["adam", "keras_adam"]),
    "grad_norm_type": ("optimizer", ["adam", "keras_adam"]),
    "collect_interval": ("train_ratio", [None]),
    **dict.fromkeys(
        ("train_ratio", "num_interaction_episodes", "seed_episodes", "seed_policy", "exploration_noise"),
        ("collect", [True]),
    ),
    "operation.background_collection": ("collect", [True]),
    "continue_scale": ("use_continue_flag", [True]),
    "discount_in_continue": ("use_continue_flag", [True]),
    "encoder.stride": ("encoder.architecture", ["valid"]),
    "decoder.stride": ("decoder.architecture", ["transposed"]),
    "decoder.blocks": ("decoder.architecture", ["upsampled"]),
    "reward.bins": ("reward.distribution", ["two_hot"]),
    "agent.critic.bins": ("agent.critic.distribution", ["two_hot"]),
    "agent.actor.max_std": ("agent.actor.distribution", ["bounded_normal"]),
    "agent.actor.init_std": ("agent.actor.distribution", ["tanh_normal"]),
    "agent.actor.mean_scale": ("agent.actor.distribution", ["tanh_normal"]),
    **{
        f"environment.{key}": ("environment.benchmark", ["dmc"])
        for key in ("domain_name", "camera_id", "render_quality", "visualize_reward")
    },
    **{
        f"environment.{key}": ("environment.benchmark", ["atari"])
        for key in ("noops", "sticky_actions", "full_action_set", "terminal_on_life_loss", "time_limit")
    },
    "environment.kwargs": ("environment.benchmark", ["gym", "gymnasium"]),
    "environment.success_key": ("environment.benchmark", ["gym", "gymnasium", *PACKAGED_BENCHMARKS, "python"]),
    "environment.grayscale": ("environment.from_pixels", [True]),
}
MOST_STEPS = 10**6  # in a batch


def conflict(values: dict[str, Any]) -> str | None:
    """Return why these settings cannot work together, in one line; None if they can."""

    def of(key):
        return values[full_key(key)]

    length, steps = of("batch_length"), of("batch_size") * of("batch_length")
    min_std, max_std = of("agent.actor.min_std"), of("agent.actor.max_std")
    benchmark = of("environment.benchmark")
    conflicts = [
        (
            of("agent.actor.distribution") == "bounded_normal" and min_std > max_std,
            f"agent.actor.min_std: {min_std} is above agent.actor.max_std, {max_std}; lower it",
        ),
        (
            steps > MOST_STEPS,
            f"batch_size: batch_size · batch_length is {steps:,} steps; expected at most {MOST_STEPS:,}, whose "
            "64x64 pixels take 12 GB as uint8 and 49 GB as float32; lower one",
        ),
        (
            of("buffer.capacity") < length,
            f"buffer.capacity: {of('buffer.capacity')} steps cannot hold a batch_length of {length}; raise it",
        ),
        (
            (of("kl_dynamics_scale") is None) != (of("kl_representation_scale") is None),
            "kl_dynamics_scale and kl_representation_scale: give both or neither",
        ),
        (
            of("replay_critic_scale") and of("version") != 3,
            "replay_critic_scale: only in version 3, where the gradients of all losses are taken together; leave it "
            "at 0",
        ),
        (
            of("buffer.prioritize_ends") and of("buffer.sampling") == "windows",
            "buffer.prioritize_ends: True does nothing with sampling: windows; set sampling: episodes",
        ),
        (
            not of("collect") and not of("dataset"),
            "collect: False leaves nothing to learn from; name a dataset",
        ),
        (
            not of("seed_episodes") and not of("dataset"),
            "seed_episodes: 0 leaves nothing to learn from; name a dataset",
        ),
        (
            not of("collect") and of("max_env_steps") is not None,
            "max_env_steps: with collect: False no env steps are made; set it to null; train_iterations ends the run",
        ),
        (
            of("environment.vectorized") and benchmark not in ("gymnasium", "python"),
            f"environment.vectorized: True needs environment.benchmark gymnasium or python, not {benchmark}",
        ),
        (
            of("decoder.architecture") == "upsampled" and not of("environment.pixel_norm"),
            "decoder.architecture: upsampled gives pixels from -0.5 to 0.5; set environment.pixel_norm: True",
        ),
    ]
    for holds, reason in conflicts:
        if holds:
            return full_key(reason)  # a reason begins with its key
    return None


def unread_keys(values: dict[str, Any], keys: Iterable[str]) -> dict[str, str]:
    """Return {dotted key: why nothing reads it} for those of `keys` that nothing reads."""
    found = {}
    offline = not values[full_key("collect")]  # then updates are counted by collect_interval, whatever train_ratio is
    for key in keys:
        if offline and key == full_key("collect_interval"):
            continue
        condition, wanted = READ_WHERE.get(key.removeprefix(SECTION), ("", []))
        if condition and values[full_key(condition)] not in wanted:
            found[key] = f"{full_key(condition)} is {values[full_key(condition)]}"
        elif ".plan2explore." in key and values["algorithm"] != "plan2explore":
            found[key] = f"{values['algorithm']} does not read it"
    return found


def full_key(key: str) -> str:
    """Return a key with its section; without one it is under `parameters.dreamer`."""
    return key if key.startswith(OTHERS) else SECTION + key
