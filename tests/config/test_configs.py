"""The files of configs/: their values, that each builds and makes an update, and that every key is read."""

import re
from pathlib import Path

import pytest
import torch
from gymnasium import spaces
from torch import nn

from dreamer.build import build_algorithm
from dreamer.config.load import CONFIGS, DEFAULTS, flatten, load_config
from dreamer.config.names import config_names, tasks_of
from dreamer.config.rules import full_key
from dreamer.envs.actions import ActionParts
from dreamer.envs.make import make_train_env
from dreamer.modules.layers import BlockLinear, fan_in
from tests.toys import FrameEnv, ShortEpisodes, make_agent

NAMES = sorted(path.stem for path in CONFIGS.glob("*.yml"))
PUBLISHED = """acrobot-swingup ball-in-cup-catch cartpole-balance cartpole-balance-sparse cartpole-swingup
cartpole-swingup-sparse cheetah-run finger-spin finger-turn-easy finger-turn-hard hopper-hop hopper-stand
pendulum-swingup quadruped-run quadruped-walk reacher-easy reacher-hard walker-run walker-stand walker-walk"""
TASKS = [f"dmc-{task}" for task in PUBLISHED.split()]


V2, V3 = ["dmc-walker-walk", "dreamer-v2"], ["dmc-walker-walk", "dreamer-v3", "size1m"]
CONTROLS = spaces.Box(-1, 1, (6,))
QUICK = [name for name in NAMES if name.startswith("quick-")]


PONG = [["atari-pong"], ["atari-pong", "dreamer-v2-atari"]]
PONG += [["atari-pong", "dreamer-v3", protocol, "size1m"] for protocol in ("atari100k", "atari200m")]


@pytest.mark.parametrize("name", [*QUICK, "dreamer", "plan2explore", V2, V3, ["plan2explore", *V3], *PONG], ids=str)
def test_each_configuration_builds_and_makes_one_update(name):
    """Observations are real and networks have their full size; only the batch is small."""
    if name in PONG:
        pytest.importorskip("ale_py")
    small = [f"parameters.dreamer.{size}" for size in ("batch_size=2", "batch_length=4", "horizon_length=3")]
    config = load_config(name, small)
    env = make_train_env(config.environment, config.operation.seed)
    agent = make_agent(config, ShortEpisodes(env, 6))
    agent.trainer.collect(agent.collection_policy(env), 1)
    metrics, feature = agent.update(agent.trainer.learner.sample())
    assert feature.shape[:2] == (2, 4) and not feature.requires_grad
    assert all(value.isfinite() for value in metrics.values()) and metrics["grad_norm/actor"] > 0


def test_task_configurations_differ_from_the_defaults_only_in_the_task():
    assert {*TASKS, *(f"p2e-{name}" for name in TASKS)} < {*config_names()}
    default = flatten(load_config("dreamer"))
    for name in ("dmc-ball-in-cup-catch", "dmc-cartpole-swingup-sparse", "dmc-quadruped-walk"):
        config, exploring = flatten(load_config(name)), flatten(load_config(f"p2e-{name}"))
        domain_name, task_name = (config[f"environment.{key}"] for key in ("domain_name", "task_name"))
        assert name == f"dmc-{domain_name}-{task_name}".replace("_", "-")
        task = {"domain_name": domain_name, "task_name": task_name, "camera_id": 2 if domain_name == "quadruped" else 0}
        assert config == default | {f"environment.{key}": value for key, value in task.items()} | log_dir(name)
        assert exploring == config | {"algorithm": "plan2explore"} | log_dir(f"p2e-{name}")


def log_dir(name):
    return {"operation.log_dir": name}


def test_atari_configurations_differ_only_in_the_game():
    atari100k = """alien amidar assault asterix bank-heist battle-zone boxing breakout chopper-command crazy-climber
    demon-attack freeway frostbite gopher hero jamesbond kangaroo krull kung-fu-master ms-pacman pong private-eye qbert
    road-runner seaquest up-n-down"""
    games = tasks_of("atari")
    assert len(games) == 57 and {f"atari-{game}" for game in atari100k.split()} < games.keys()
    atari = flatten(load_config("atari"))
    for name in ("atari-alien", "atari-up-n-down"):
        assert flatten(load_config(name)) == atari | log_dir(name) | {"environment.task_name": games[name]}
    changed = {"operation.log_dir": "atari", "environment.benchmark": "atari", "environment.task_name": "pong"}
    changed |= {"environment.frame_skip": 4, "parameters.dreamer.use_continue_flag": True}
    assert atari == flatten(load_config("dreamer")) | changed


def test_the_defaults_are_the_published_numbers():
    """The numbers are those of docs/fidelity.md."""
    settings = load_config("dreamer").parameters.dreamer
    numbers = {"train_iterations": 1000, "collect_interval": 100, "num_interaction_episodes": 1, "seed_episodes": 5}
    numbers |= {"batch_size": 50, "batch_length": 50, "horizon_length": 15, "discount": 0.99, "lambda_": 0.95}
    numbers |= {"kl_divergence_scale": 1, "free_nats": 3, "continue_scale": 10, "exploration_noise": 0.3}
    numbers |= {"model_learning_rate": 6e-4, "actor_learning_rate": 8e-5, "critic_learning_rate": 8e-5}
    numbers |= {"adam_epsilon": 1e-7, "clip_grad": 100, "grad_norm_type": 2}
    numbers |= {"deterministic_size": 200, "stochastic_size": 30, "use_continue_flag": False}
    assert numbers.items() <= settings.items()
    env = {"frame_skip": 2, "height": 64, "width": 64, "pixel_norm": True, "camera_id": 0}
    assert env.items() <= load_config("dreamer").environment.items()


def test_the_default_networks_are_the_published_ones():
    """The built networks have the published hidden layers, widths and activations."""
    model, actor, critic = networks_of("dreamer").values()

    def shape(network):
        linears = [layer.out_features for layer in network if isinstance(layer, nn.Linear)]
        activations = {type(layer).__name__ for layer in network if not isinstance(layer, nn.Linear)}
        return linears, activations

    assert shape(actor.network) == ([400] * 4 + [12], {"ELU"})
    assert shape(critic.network) == ([400] * 3 + [1], {"ELU"})
    assert shape(model.reward_model.network) == ([400] * 2 + [1], {"ELU"})
    assert shape(model.rssm.transition_model.network) == ([200, 60], {"ELU"})
    assert shape(model.rssm.representation_model.network) == ([200, 60], {"ELU"})
    assert model.rssm.transition_model.min_std == model.rssm.representation_model.min_std == 0.1
    recurrent = model.rssm.recurrent_model
    assert (recurrent.linear.out_features, recurrent.gru.hidden_size) == (200, 200)
    assert (model.encoder.embedding_size, model.decoder.network[0].in_features) == (1024, 230)
    continue_model = networks_of("dreamer", "parameters.dreamer.use_continue_flag=True")["model"].continue_model
    assert shape(continue_model.network) == ([400] * 3 + [1], {"ELU"})


def test_the_defaults_of_plan2explore():
    """Settings and built networks: each member has 4 hidden layers, and both behaviours have the same sizes."""
    config = load_config("plan2explore")
    assert config.algorithm == "plan2explore" and load_config("dreamer").algorithm == "dreamer"
    assert config.parameters.plan2explore == {
        "explorer": "disagreement",
        "explore_env_steps": None,
        "num_ensemble": 10,
        "target": "embedding",
        "disagreement": "variance",
        "disagreement_gradient": True,
        "intrinsic_reward_scale": 1e4,
        "reward_gradient_to_model": False,
        "one_step_model_learning_rate": 3e-4,
        "one_step_model": {"hidden_size": 400, "num_layers": 4, "activation": "ELU"},
    }
    networks = networks_of("plan2explore")
    layers = networks["one_step_model"].network
    weights = [(10, 236, 400), *3 * [(10, 400, 400)], (10, 400, 1024)]
    assert [tuple(layer.weight.shape) for layer in layers[::2]] == weights
    assert {type(layer).__name__ for layer in layers[1::2]} == {"ELU"}
    for part in ("actor", "critic"):
        assert str(networks[part]) == str(networks[f"exploration_{part}"])
    assert list(networks_of("dreamer")) == ["model", "actor", "critic"]


LATER = {  # what the authors' presets for the Control Suite say, beside the sizes that test_parameter_counts holds
    2: {
        **{"model_learning_rate": 3e-4, "actor_learning_rate": 8e-5, "critic_learning_rate": 8e-5},
        **{"optimizer": "keras_adam", "adam_epsilon": 1e-5, "weight_decay": 1e-6, "clip_grad": 100},
        **{"batch_size": 16, "batch_length": 50, "horizon_length": 15, "train_ratio": 160, "pretrain": 100},
        **{"seed_episodes": 2, "seed_policy": "random", "buffer.sampling": "episodes", "buffer.online": False},
        **{"buffer.prioritize_ends": False, "buffer.capacity": 2e6, "replay_context": False},
        **{"kl_dynamics_scale": 0.8, "kl_representation_scale": 0.2, "kl_divergence_scale": 1, "free_nats": 1},
        **{"free_nats_per_step": False, "symlog_inputs": False, "latent": "categorical", "unimix": 0},
        **{"discount": 0.99, "lambda_": 0.95, "discount_in_continue": True, "continue_scale": 1},
        **{"actor_gradient": "auto", "entropy_scale": 1e-4, "exploration_noise": 0, "return_normalization": False},
        **{"slow_critic": "target", "slow_critic_interval": 100, "slow_critic_fraction": 1},
        **{"agent.actor.distribution": "truncated_normal", "agent.actor.min_std": 0.1, "agent.actor.unimix": 0},
        **{"norm": "none", "initialization": "glorot", "rssm.recurrent_model.cell": "layer_norm_gru"},
        **{"reward.distribution": "normal", "agent.critic.distribution": "normal", "decoder.likelihood": "normal"},
        **{"encoder.activation": "ELU", "decoder.activation": "ELU", "agent.actor.activation": "ELU"},
        **{"environment.frame_skip": 2, "evaluation.sample": False, "replay_critic_scale": 0},
    },
    3: {
        **{"model_learning_rate": 4e-5, "actor_learning_rate": 4e-5, "critic_learning_rate": 4e-5},
        **{"optimizer": "laprop", "agc": 0.3, "warm_up": 1000},
        **{"batch_size": 16, "batch_length": 64, "horizon_length": 15, "train_ratio": 512, "pretrain": 0},
        **{"seed_episodes": 3, "seed_policy": "actor", "buffer.sampling": "windows", "buffer.online": True},
        **{"buffer.capacity": 5e6, "replay_context": True},
        **{"kl_dynamics_scale": 1, "kl_representation_scale": 0.1, "kl_divergence_scale": 1, "free_nats": 1},
        **{"free_nats_per_step": True, "symlog_inputs": True, "latent": "categorical", "unimix": 0.01},
        **{"discount": 1 - 1 / 333, "lambda_": 0.95, "discount_in_continue": True, "continue_scale": 1},
        **{"use_continue_flag": True, "actor_gradient": "reinforce", "entropy_scale": 3e-4, "exploration_noise": 0},
        **{"return_normalization": True, "slow_critic": "regularizer", "slow_critic_interval": 1},
        **{"slow_critic_fraction": 0.02, "replay_critic_scale": 0.3, "agent.actor.distribution": "bounded_normal"},
        **{"agent.actor.min_std": 0.1, "agent.actor.max_std": 1, "agent.actor.unimix": 0.01},
        **{"agent.actor.outscale": 0.01, "reward.outscale": 0, "agent.critic.outscale": 0, "norm": "rms"},
        **{"initialization": "truncated_normal", "rssm.recurrent_model.cell": "block_gru"},
        **{"reward.distribution": "two_hot", "agent.critic.distribution": "two_hot"},
        **{"decoder.likelihood": "squared_error", "environment.frame_skip": 2, "evaluation.sample": True},
    },
}


@pytest.mark.parametrize("version", LATER)
def test_the_numbers_of_the_later_versions(version):
    settings = flatten(load_config(["dmc-walker-walk", f"dreamer-v{version}"]))
    found = {key: settings[full_key(key)] for key in LATER[version]}
    assert found == LATER[version]
    activations = {value for key, value in settings.items() if key.endswith(".activation")}
    assert activations == {"ELU" if version == 2 else "SiLU"}
    exploring = {key: settings[f"parameters.plan2explore.{key}"] for key in ("target", "disagreement")}
    assert exploring == {"target": "stochastic", "disagreement": "population_std"}
    assert settings["parameters.plan2explore.intrinsic_reward_scale"] == 1


GAME = {"benchmark": "atari", "task_name": "pong", "from_pixels": True, "num_envs": 1, "frame_skip": 4}
GAME |= {"noops": 30, "time_limit": 108000, "terminal_on_life_loss": False}
STICKY_GREY = GAME | {"sticky_actions": 0.25, "grayscale": True}
ATARI = {  # what the authors' presets for Atari say, beside what is as on the Control Suite
    "dreamer-v2-atari": {
        **{f"environment.{key}": value for key, value in STICKY_GREY.items()},
        **{"environment.full_action_set": False, "environment.height": 64, "environment.width": 64},
        **{"max_env_steps": 2e8, "train_ratio": 16 * 50 / 16, "batch_size": 16, "batch_length": 50, "pretrain": 1},
        **{"seed_episodes": 50, "seed_policy": "random", "kl_divergence_scale": 0.1, "free_nats": 0},
        **{"reward_transform": "tanh", "discount": 0.999, "use_continue_flag": True, "continue_scale": 5},
        **{"actor_gradient": "reinforce", "entropy_scale": 1e-3, "buffer.prioritize_ends": True},
        **{"model_learning_rate": 2e-4, "actor_learning_rate": 4e-5, "critic_learning_rate": 1e-4},
        **{"deterministic_size": 600, "rssm.recurrent_model.hidden_size": 600},
        **{"rssm.transition_model.hidden_size": 600, "rssm.representation_model.hidden_size": 600},
    },
    "dreamer-v3 atari100k": {
        "seed_episodes": 1,
        **{f"environment.{key}": value for key, value in GAME.items()},
        **{"environment.sticky_actions": 0, "environment.full_action_set": False, "environment.grayscale": False},
        **{"environment.height": 64, "environment.width": 64, "max_env_steps": 4e5, "train_ratio": 256},
    },
    "dreamer-v3 atari200m": {
        **{f"environment.{key}": value for key, value in STICKY_GREY.items()},
        **{"environment.full_action_set": True, "environment.height": 96, "environment.width": 96},
        **{"max_env_steps": 2e8, "train_ratio": 32},
    },
}


@pytest.mark.parametrize("names", ATARI)
def test_the_numbers_for_atari(names):
    """Other settings are those of the Control Suite, except the number and interval of evaluations."""
    version = names.split()[0][: len("dreamer-v0")]
    settings, other = (flatten(load_config(each)) for each in (["atari-pong", *names.split()], ["atari-pong", version]))
    expected = {full_key(key): value for key, value in ATARI[names].items()}
    assert {key: settings[key] for key in expected} == expected
    free = {"operation.log_dir", full_key("train_iterations"), full_key("evaluate_interval")}
    assert {key for key in settings if settings[key] != other[key]} <= expected.keys() | free
    assert settings[full_key("train_iterations")] * 200 >= settings[full_key("max_env_steps")], "games have more frames"


def test_dreamer_v3_networks_have_the_configured_unimix_and_initialization():
    """Every categorical has its uniform share, and every network's weights are cut at two standard deviations."""
    dreamer = build(["dmc-walker-walk", "dreamer-v3", "size1m"])
    rssm, actor = dreamer.model.rssm, dreamer.actor
    assert rssm.transition_model.unimix == rssm.representation_model.unimix == 0.01
    discrete = build(["dmc-walker-walk", "dreamer-v3", "size1m"], ActionParts([6])).actor
    sure = torch.full((1, 6), -100.0).index_fill(1, torch.tensor(0), 100.0)
    torch.testing.assert_close(discrete.policy(sure).log_prob(torch.eye(6)[1:2]).exp(), torch.tensor([0.01 / 6]))
    torch.testing.assert_close(actor.policy(torch.zeros(1, 12)).scale[0, 0], torch.tensor(0.9 * 0.880797 + 0.1))
    layers = {
        name: layer
        for network in ("model", "actor")
        for name, layer in dreamer.networks[network].named_modules(prefix=network)
        if isinstance(layer, (nn.Linear, nn.Conv2d, BlockLinear)) and layer.weight.numel() > 500
    }
    kinds = ("encoder", "decoder", "recurrent_model", "transition_model", "representation_model", "continue", "actor")
    assert all(any(kind in name for name in layers) for kind in kinds)
    for name, layer in layers.items():
        if "reward" not in name and not name.endswith("network.9"):  # those that begin at 0, or smaller
            std = fan_in(layer) ** -0.5
            assert 0.85 * std < layer.weight.std() < 1.15 * std, name
            assert layer.weight.abs().max() <= 2 * 1.1368 * std + 1e-6 and (layer.bias == 0).all(), name


def networks_of(name, *overrides):
    return build(name, CONTROLS, *overrides).networks


def build(name, actions=CONTROLS, *overrides):
    """Build the algorithm with the observation and action sizes of walker-walk from pixels."""
    env = FrameEnv()
    env.action_space = actions
    return build_algorithm(load_config(name, overrides), env, torch.device("cpu"))


def test_every_key_is_read_by_the_code():
    """Each key of dreamer.yml occurs somewhere in the code."""
    root = Path(__file__).resolve().parents[2]
    code = "\n".join(path.read_text() for path in [root / "main.py", *root.glob("dreamer/**/*.py")])
    keys = re.findall(r"^ *(\w+):", DEFAULTS.read_text(), flags=re.M)
    unread = {key for key in keys if not re.search(rf"\b{key}\b", code)}
    assert not unread
