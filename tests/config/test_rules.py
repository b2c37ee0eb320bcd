"""Conflicting settings are refused, and ignored settings give a warning, in one line."""

import pytest

from dreamer.config.load import flatten, load_config
from dreamer.config.rules import READ_WHERE, full_key
from dreamer.errors import ConfigError


@pytest.mark.parametrize(
    "names, overrides, reason",
    [
        ("dreamer", ["buffer.capacity=20"], "buffer.capacity: 20 steps cannot hold a batch_length of 50"),
        ("dreamer", ["kl_dynamics_scale=1"], "kl_dynamics_scale and kl_representation_scale: give both or neither"),
        ("dreamer", ["kl_representation_scale=1"], "give both or neither"),
        ("dreamer-v2", ["replay_critic_scale=0.3"], "replay_critic_scale: only in version 3"),
        ("dreamer-v3", ["buffer.prioritize_ends=True"], "set sampling: episodes"),
        ("dreamer", ["collect=False"], "collect: False leaves nothing to learn from; name a dataset"),
        ("dreamer", ["seed_episodes=0"], "seed_episodes: 0 leaves nothing to learn from; name a dataset"),
        ("atari100k", ["collect=False", "dataset=data"], "max_env_steps: with collect: False no env steps are made"),
        ("dreamer", ["decoder.architecture=upsampled", "^environment.pixel_norm=False"], "pixel_norm: True"),
    ],
)
def test_conflicting_settings_are_refused(names, overrides, reason):
    overrides = [each[1:] if each[0] == "^" else f"parameters.dreamer.{each}" for each in overrides]
    with pytest.raises(ConfigError, match=reason) as caught:
        load_config(names, overrides)
    assert str(caught.value).startswith("parameters.dreamer.") and "\n" not in str(caught.value)


def test_train_ratio_is_ignored_offline(capsys):
    """Offline, an iteration has `collect_interval` updates."""
    offline = {"collect": False, "dataset": "data", "collect_interval": 5, "train_ratio": 8}
    load_config("dreamer-v3", {f"parameters.dreamer.{key}": value for key, value in offline.items()})
    warning = "warning: parameters.dreamer.train_ratio is ignored: parameters.dreamer.collect is False\n"
    assert capsys.readouterr().err == warning


@pytest.mark.parametrize(
    "names, override, warning",
    [
        ("dreamer", "parameters.dreamer.classes=8", "parameters.dreamer.latent is gaussian"),
        ("dreamer-v2", "parameters.dreamer.classes=8", ""),
        ("dreamer-v2", "parameters.dreamer.rssm.transition_model.min_std=0.2", "latent is categorical"),
        ("dreamer-v3", "parameters.dreamer.clip_grad=10", "parameters.dreamer.optimizer is laprop"),
        ("dreamer-v3", "parameters.dreamer.collect_interval=10", "parameters.dreamer.train_ratio is 512"),
        ("dreamer-v3", "parameters.dreamer.encoder.stride=3", "parameters.dreamer.encoder.architecture is max_pool"),
        ("dreamer", "parameters.dreamer.continue_scale=9", "parameters.dreamer.use_continue_flag is False"),
        ("quick-v3-cartpole", "environment.render_quality=fast", "environment.benchmark is gym"),
        ("dreamer", "environment.noops=9", "environment.benchmark is dmc"),
        ("atari-pong", "environment.noops=9", ""),
        ("atari-pong", "environment.camera_id=1", "environment.benchmark is atari"),
        ("dreamer", "environment.grayscale=True", ""),
        ("quick-v3-cartpole", "environment.grayscale=True", "environment.from_pixels is False"),
        ("dreamer", "parameters.plan2explore.num_ensemble=5", "dreamer does not read it"),
        ("plan2explore", "parameters.plan2explore.num_ensemble=5", ""),
    ],
)
def test_setting_an_ignored_key_gives_a_warning(names, override, warning, capsys):
    load_config(names, [override])
    output = capsys.readouterr().err
    assert output.count("\n") == bool(warning) and warning in output
    assert not warning or output.startswith(f"warning: {override.partition('=')[0]} is ignored: ")


def test_own_configurations_give_no_warnings(capsys):
    for name in ("dreamer-v2", "dreamer-v3", "quick-v3", "size1m", "plan2explore"):
        load_config(["dmc-walker-walk", name])
    assert capsys.readouterr().err == ""


def test_rules_name_existing_keys():
    known = flatten(load_config("dreamer"))
    assert all(full_key(key) in known for key in (*READ_WHERE, *(other for other, _ in READ_WHERE.values())))
