"""Build an algorithm from a configuration and an environment's spaces. Sizes that follow from others are derived here.

config is the whole configuration, settings its sub-tree `parameters.dreamer`. env is an `Env` or `ParallelEnvs`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dreamer.algorithms.actor_critic import ActorCritic, ReturnScale, make_slow_critic
from dreamer.algorithms.algorithm import Algorithm, DreamerAlgorithm
from dreamer.algorithms.dreamer import Dreamer
from dreamer.algorithms.dreamer_v2 import DreamerV2
from dreamer.algorithms.dreamer_v3 import DreamerV3
from dreamer.algorithms.plan2explore import Disagreement, Novelty, Plan2Explore
from dreamer.config.load import Config
from dreamer.envs.actions import classes_of
from dreamer.errors import ConfigError
from dreamer.modules.actor import Actor, bounded_normal, joint, one_hot, tanh_normal, truncated_normal
from dreamer.modules.decoder import make_decoder
from dreamer.modules.encoder import make_encoder
from dreamer.modules.ensemble import OneStepModel
from dreamer.modules.heads import BernoulliHead, Head, NormalHead, SymexpTwoHot
from dreamer.modules.joint import group_parts
from dreamer.modules.latents import CategoricalModel, GaussianModel
from dreamer.modules.recurrent import BlockRecurrentModel, LayerNormGRUCell, Recurrence, RecurrentModel
from dreamer.modules.rssm import RSSM
from dreamer.modules.world_model import WorldModel
from dreamer.replay.buffer import ReplayBuffer, observation_type
from dreamer.replay.sampling import EpisodeSampler, OnlineQueue, WindowSampler

VERSIONS: dict[int, type[DreamerAlgorithm]] = {1: Dreamer, 2: DreamerV2, 3: DreamerV3}


def build_algorithm(config: Config, env: Any, device: torch.device) -> Algorithm:
    """Build the networks of a configuration for `env`, and the algorithm by which they learn.

    Raises ConfigError for sizes that do not fit together.
    """
    model = build_world_model(config, env, device)
    actor_critic = build_actor_critic(config, env, device)
    return assemble_algorithm(config, env, device, model, actor_critic)


def assemble_algorithm(
    config: Config, env: Any, device: torch.device, model: WorldModel, actor_critic: ActorCritic
) -> Algorithm:
    """Return the algorithm by which a world model, an actor and a critic learn.

    For Plan2Explore an ensemble and an explorer are built, too.
    """
    settings, autocast = config.parameters.dreamer, make_autocast(config, device)
    dreamer = VERSIONS[config.version](settings, model, actor_critic, autocast)
    if config.algorithm == "dreamer":
        return dreamer
    novelty = build_novelty(config, env, model.encoder.embedding_size, device)
    explorer = build_actor_critic(config, env, device, prefix="exploration_")
    return Plan2Explore(config.parameters.plan2explore, dreamer, novelty, explorer)


def build_actor_critic(config: Config, env: Any, device: torch.device, prefix: str = "") -> ActorCritic:
    """Return actor and critic, with a slow critic and a return scale if they are configured.

    prefix: of the networks' names in a checkpoint.
    """
    settings = config.parameters.dreamer
    actor, critic = build_actor(config, env, device), build_critic(config, device)
    slow_critic = return_scale = None
    if settings.slow_critic != "none":
        slow_critic = make_slow_critic(
            critic,
            make_critic=partial(build_critic, config, device),
            interval=settings.slow_critic_interval,
            fraction=settings.slow_critic_fraction,
        )
    if settings.return_normalization:
        return_scale = ReturnScale(device)
    return ActorCritic(settings, actor, critic, slow_critic, return_scale, prefix)


def build_world_model(config: Config, env: Any, device: torch.device) -> WorldModel:
    """Return the world model: encoder, RSSM, decoder, reward model and, where tasks end, continue model."""
    settings, space = config.parameters.dreamer, env.observation_space
    sizes, style = latent_sizes(settings), layer_style(settings)
    deterministic_size, _ = sizes
    encoder = make_encoder(space, **settings.encoder, **style)
    posterior_inputs = deterministic_size + encoder.embedding_size
    rssm = RSSM(
        build_recurrent_model(settings, env.action_space.shape[0]),
        build_latent_model(settings, deterministic_size, settings.rssm.transition_model),
        build_latent_model(settings, posterior_inputs, settings.rssm.representation_model),
        sizes,
    )
    decoder = make_decoder(sizes, space, **settings.decoder, **style)
    reward = build_scalar_head(config, settings.reward)
    continue_model = None
    if settings.use_continue_flag:
        continue_model = Head(sum(sizes), BernoulliHead(), **settings.continue_, **style)
    model = WorldModel(
        encoder, rssm, decoder, reward, continue_model, config.environment.pixel_norm, settings.symlog_inputs
    )
    # Convolutions are faster with channels last. torch's stub does not know this argument.
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_recurrent_model(settings: Config, action_size: int) -> Recurrence:
    """Return the model of h_t given h_{t-1}, z_{t-1} and a_t. Raises ConfigError if h cannot be split into blocks."""
    layers = dict(settings.rssm.recurrent_model) | layer_style(settings)
    cell, blocks = layers.pop("cell"), layers.pop("blocks")
    deterministic_size, stochastic_size = latent_sizes(settings)
    sizes = stochastic_size, deterministic_size, action_size
    if cell == "block_gru":
        if deterministic_size % blocks:
            key = "parameters.dreamer.deterministic_size"
            raise ConfigError(f"{key}: {deterministic_size} is not a multiple of {blocks} blocks")
        return BlockRecurrentModel(*sizes, blocks=blocks, **layers)
    gru = LayerNormGRUCell if cell == "layer_norm_gru" else nn.GRUCell
    return RecurrentModel(*sizes, cell=gru, **layers)


def build_latent_model(settings: Config, input_size: int, section: Config) -> nn.Module:
    """Return the network of prior or posterior. section: `rssm.transition_model` or `rssm.representation_model`."""
    layers = dict(section) | layer_style(settings)
    min_std = layers.pop("min_std")
    if settings.latent == "gaussian":
        return GaussianModel(input_size, settings.stochastic_size, min_std, **layers)
    return CategoricalModel(input_size, settings.stochastic_size, settings.classes, settings.unimix, **layers)


def build_scalar_head(config: Config, section: Config) -> Head:
    """Return a head that predicts numbers, the reward model or a critic. section: its section of the configuration."""
    layers = dict(section)
    name, bins = layers.pop("distribution"), layers.pop("bins")
    distribution = SymexpTwoHot(bins) if name == "two_hot" else NormalHead()
    settings = config.parameters.dreamer
    return Head(sum(latent_sizes(settings)), distribution, **layers, **layer_style(settings))


def build_actor(config: Config, env: Any, device: torch.device) -> Actor:
    """Return an actor for the actions of `env`."""
    settings = config.parameters.dreamer
    groups = group_parts(classes_of(env.action_space))
    layers = dict(settings.agent.actor)  # after the pops: arguments of `mlp`
    distribution = layers.pop("distribution")
    mean_scale = layers.pop("mean_scale")
    min_std = layers.pop("min_std")
    max_std = layers.pop("max_std")
    init_std = layers.pop("init_std")
    unimix = layers.pop("unimix")
    continuous_policies: dict[str, Callable] = {
        "tanh_normal": partial(tanh_normal, mean_scale=mean_scale, init_std=init_std, min_std=min_std),
        "truncated_normal": partial(truncated_normal, min_std=min_std),
        "bounded_normal": partial(bounded_normal, min_std=min_std, max_std=max_std),
    }
    continuous = continuous_policies[distribution]
    has_several_one_hots = groups[0].classes > 0 and groups[0].parts > 1
    policy: Callable
    if len(groups) > 1 or has_several_one_hots:
        straight_through = settings.actor_gradient != "auto"
        policy = partial(joint, groups=groups, continuous=continuous, unimix=unimix, straight_through=straight_through)
    elif groups[0].classes:
        policy = partial(one_hot, unimix=unimix)
    else:
        policy = continuous
    feature_size = sum(latent_sizes(settings))
    output_size = sum(group.outputs for group in groups)
    return Actor(feature_size, output_size, policy, groups, **layers, **layer_style(settings)).to(device)


def build_critic(config: Config, device: torch.device) -> Head:
    """Return a critic."""
    return build_scalar_head(config, config.parameters.dreamer.agent.critic).to(device)


def build_novelty(config: Config, env: Any, embedding_size: int, device: torch.device) -> Novelty:
    """Return the novelty that rewards Plan2Explore's explorer."""
    one_step_model = build_ensemble(config, env, embedding_size, device)
    autocast = make_autocast(config, device)
    return Disagreement(config.parameters.plan2explore, config.parameters.dreamer, one_step_model, autocast)


def build_ensemble(config: Config, env: Any, embedding_size: int, device: torch.device) -> OneStepModel:
    """Return Plan2Explore's ensemble of one-step models."""
    settings = config.parameters.plan2explore
    deterministic_size, stochastic_size = latent_sizes(config.parameters.dreamer)
    feature_size, action_size = deterministic_size + stochastic_size, env.action_space.shape[0]
    target_size = stochastic_size if settings.target == "stochastic" else embedding_size
    model = OneStepModel(feature_size, action_size, target_size, settings.num_ensemble, **settings.one_step_model)
    return model.to(device)


def latent_sizes(settings: Config) -> tuple[int, int]:
    """Return the sizes D of h and S of z."""
    classes = settings.classes if settings.latent == "categorical" else 1
    return settings.deterministic_size, settings.stochastic_size * classes


def layer_style(settings: Config) -> dict[str, Any]:
    """Return the arguments of layers that are the same in all networks."""
    return {"norm": settings.norm, "initialization": settings.initialization}


def build_replay(config: Config, env: Any, folder: str | Path, seed: int, rssm: RSSM | None = None) -> ReplayBuffer:
    """Return the replay in the folder of a run, for the observations of `env` and the configured sampling.

    rssm: the model whose latent states are stored, needed with `replay_context`.
    """
    settings, buffer = config.parameters.dreamer, config.parameters.dreamer.buffer
    sampler = EpisodeSampler(buffer.prioritize_ends) if buffer.sampling == "episodes" else WindowSampler()
    online = OnlineQueue(settings.batch_length) if buffer.online else None
    latent_size = 0
    if settings.replay_context:
        assert rssm is not None, "with replay_context the replay stores the RSSM's states"
        latent_size = rssm.stored_size
    observation_shape, observation_dtype = observation_type(env.observation_space)
    return ReplayBuffer(
        folder,
        buffer.capacity,
        observation_shape,
        observation_dtype,
        action_size=env.action_space.shape[0],
        seed=seed,
        latent_size=latent_size,
        sampler=sampler,
        online=online,
    )


def make_autocast(config: Config, device: torch.device) -> Callable[[], AbstractContextManager]:
    """Return a function that makes the context in which large products are computed in the configured precision."""
    if config.operation.precision == "float32":
        return nullcontext
    return partial(torch.autocast, device.type, torch.bfloat16)
