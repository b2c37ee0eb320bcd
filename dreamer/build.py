"""From a configuration and an environment's spaces to an algorithm. Sizes that follow from others are derived here."""

from contextlib import nullcontext
from functools import partial

import torch

from dreamer.algorithms.dreamer import Behavior, Dreamer
from dreamer.algorithms.plan2explore import Plan2Explore
from dreamer.checkpoint import load_checkpoint
from dreamer.config import ConfigError, check_embedding_size
from dreamer.envs.make import is_discrete
from dreamer.metrics import NotFiniteError
from dreamer.modules.actor import Actor
from dreamer.modules.decoder import make_decoder
from dreamer.modules.encoder import make_encoder
from dreamer.modules.ensemble import OneStepModel
from dreamer.modules.heads import Head, bernoulli, normal
from dreamer.modules.latents import GaussianModel
from dreamer.modules.rssm import RSSM, RecurrentModel
from dreamer.modules.world_model import WorldModel
from dreamer.replay import ReplayBuffer, observation_type
from dreamer.sampling import Episodes, Online, Windows


def build_algorithm(config, env, device):
    """The configuration's algorithm for `env`, on a device. Raises ConfigError for sizes that do not fit together."""
    settings, autocast = config.parameters.dreamer, make_autocast(config, device)
    model = build_world_model(config, env, device)
    behavior = Behavior(settings, build_actor(config, env, device), build_critic(config, device), autocast)
    dreamer = Dreamer(settings, model, behavior, autocast)
    if config.algorithm == "dreamer-v1":
        return dreamer
    ensemble = build_ensemble(config, env, model.encoder.embedding_size, device)
    actor, critic = build_actor(config, env, device), build_critic(config, device)
    explorer = Behavior(settings, actor, critic, autocast, prefix="exploration_")
    return Plan2Explore(config.parameters.plan2explore, dreamer, ensemble, explorer)


def build_world_model(config, env, device):
    """Encoder, RSSM, decoder, reward model and, where tasks end, continue model."""
    settings, shape, action_size = config.parameters.dreamer, env.observation_space.shape, env.action_space.shape[0]
    deterministic_size, stochastic_size = settings.deterministic_size, settings.stochastic_size
    encoder = make_encoder(shape, **settings.encoder)
    check_embedding_size(settings.embedded_state_size, encoder.embedding_size)
    rssm = RSSM(
        RecurrentModel(stochastic_size, deterministic_size, action_size, **settings.rssm.recurrent_model),
        GaussianModel(deterministic_size, stochastic_size, **settings.rssm.transition_model),
        GaussianModel(
            deterministic_size + encoder.embedding_size, stochastic_size, **settings.rssm.representation_model
        ),
    )
    decoder = make_decoder(feature_size(config), shape, **settings.decoder)
    reward = Head(feature_size(config), normal, **settings.reward)
    goes_on = Head(feature_size(config), bernoulli, **settings.continue_) if settings.use_continue_flag else None
    model = WorldModel(encoder, rssm, decoder, reward, goes_on, config.environment.pixel_norm)
    return model.to(device, memory_format=torch.channels_last)  # the order in which convolutions are fast


def build_actor(config, env, device):
    actor = config.parameters.dreamer.agent.actor
    return Actor(feature_size(config), env.action_space.shape[0], is_discrete(env), **actor).to(device)


def build_critic(config, device):
    return Head(feature_size(config), normal, **config.parameters.dreamer.agent.critic).to(device)


def build_ensemble(config, env, embedding_size, device):
    """Plan2Explore's one-step models."""
    settings = config.parameters.plan2explore
    sizes = feature_size(config), env.action_space.shape[0], embedding_size, settings.num_ensemble
    return OneStepModel(*sizes, **settings.one_step_model).to(device)


def feature_size(config):
    return config.parameters.dreamer.deterministic_size + config.parameters.dreamer.stochastic_size


def build_replay(config, env, folder, seed):
    """The replay in the folder of a run, for what `env` shows and the windows that the configuration wants."""
    settings, buffer = config.parameters.dreamer, config.parameters.dreamer.buffer
    sampler = Episodes(buffer.prioritize_ends) if buffer.sampling == "episodes" else Windows()
    online = Online(settings.batch_length) if buffer.online else None
    context_size = feature_size(config) if settings.replay_context else 0
    observation, action_size = observation_type(env.observation_space), env.action_space.shape[0]
    return ReplayBuffer(folder, buffer.capacity, *observation, action_size, seed, context_size, sampler, online)


def make_autocast(config, device):
    """Makes the context in which large products take the configured precision."""
    if config.operation.precision == "float32":
        return nullcontext
    return partial(torch.autocast, device.type, torch.bfloat16)


def load_networks(networks, folder):
    """Load those networks that the newest checkpoint of a run has, too. Returns (iteration, env steps) of it.

    Raises CheckpointError, ConfigError if they differ in size, or NotFiniteError.
    """
    env_steps = None

    def use(state):
        nonlocal env_steps
        saved, env_steps = state["algorithm"]["networks"], state["trainer"]["env_steps"]
        for name in sorted(networks.keys() & saved.keys()):
            try:
                networks[name].load_state_dict(saved[name])
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise ConfigError(f"the {name} of {folder} does not fit: {reason[:300]}") from None

    iteration, _ = load_checkpoint(folder, use)
    for name, network in networks.items():
        if not all(part.isfinite().all() for part in network.state_dict().values()):
            raise NotFiniteError(f"not finite: weights of the {name} of {folder}")
    return iteration, env_steps
