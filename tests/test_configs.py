"""The files of configs/: each builds and takes one update, and no key goes unread."""

import re
from pathlib import Path

import pytest
import torch
from gym import spaces
from torch import nn

from dreamer.build import build_algorithm
from dreamer.config import CONFIGS, DEFAULTS, load_config
from dreamer.envs.make import make_train_env
from tests.toys import FrameEnv, make_agent

NAMES = sorted(path.stem for path in CONFIGS.glob("*.yml"))
TASK = "domain_name", "task_name", "camera_id"
TASKS = [name for name in NAMES if name.startswith("dmc-")]


V2, V3 = ["dmc-walker-walk", "dreamer-v2"], ["dmc-walker-walk", "dreamer-v3", "size1m"]
QUICK = [name for name in NAMES if name.startswith("quick-")]


@pytest.mark.parametrize("name", [*QUICK, "dreamer", "plan2explore", V2, V3, ["plan2explore", *V3]], ids=str)
def test_builds_and_takes_one_update(name):
    """On real observations, at the full size of the networks; only the batch is small."""
    small = [f"parameters.dreamer.{size}" for size in ("batch_size=2", "batch_length=4", "horizon_length=3")]
    config = load_config(name, small)
    env = make_train_env(config.environment, config.operation.seed)
    agent = make_agent(config, ShortEpisodes(env, 6))
    agent.trainer.collect(agent.collector(env), 1)
    metrics, feature = agent.update(agent.trainer.sample())
    assert feature.shape[:2] == (2, 4) and not feature.requires_grad
    assert all(value.isfinite() for value in metrics.values()) and metrics["grad_norm/actor"] > 0


class ShortEpisodes:
    """Cuts episodes short, so that a test need not render a whole one."""

    def __init__(self, env, length):
        self.env, self.length = env, length

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self):
        self.count = 0
        return self.env.reset()

    def step(self, action):
        self.count += 1
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated or self.count == self.length, info


def test_one_file_for_each_of_the_20_published_tasks():
    published = """acrobot-swingup ball-in-cup-catch cartpole-balance cartpole-balance-sparse cartpole-swingup
    cartpole-swingup-sparse cheetah-run finger-spin finger-turn-easy finger-turn-hard hopper-hop hopper-stand
    pendulum-swingup quadruped-run quadruped-walk reacher-easy reacher-hard walker-run walker-stand walker-walk"""
    assert [f"dmc-{task}" for task in published.split()] == TASKS


@pytest.mark.parametrize("name", TASKS)
def test_each_of_them_differs_in_the_task_alone_and_with_plan2explore_in_the_algorithm(name):
    config, exploring, default = load_config(name), load_config(f"p2e-{name}"), load_config("dreamer")
    assert config.parameters == default.parameters and config.algorithm == default.algorithm
    assert config.environment | {key: default.environment[key] for key in TASK} == default.environment
    assert config.operation == default.operation | {"log_dir": name}
    assert exploring.algorithm == "plan2explore" and exploring.operation.log_dir == f"p2e-{name}"
    overrides = ["algorithm=dreamer", f"operation.log_dir={name}"]
    assert load_config(f"p2e-{name}", overrides) == config


def test_the_defaults_are_the_published_numbers():
    """docs/fidelity.md, in figures; what the networks make of them is tested with the networks."""
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
    """Hidden layers, their width and their activation, as built."""
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
    """In figures, and as built: each member has 4 hidden layers, and both behaviours the same sizes."""
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


def networks_of(name, *overrides):
    """With the sizes of walker-walk from pixels."""
    env = FrameEnv()
    env.action_space = spaces.Box(-1, 1, (6,))
    return build_algorithm(load_config(name, overrides), env, torch.device("cpu")).networks


def test_every_key_is_read():
    """Each key of dreamer.yml is named somewhere in the code."""
    root = Path(__file__).resolve().parents[1]
    code = "\n".join(path.read_text() for path in [root / "main.py", *root.glob("dreamer/**/*.py")])
    keys = re.findall(r"^ *(\w+):", DEFAULTS.read_text(), flags=re.M)
    unread = {key for key in keys if not re.search(rf"\b{key}\b", code)}
    assert not unread
