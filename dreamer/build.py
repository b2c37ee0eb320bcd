"""From a configuration to networks and an algorithm. Sizes that follow from others are derived here."""

from functools import partial

from dreamer.algorithms.dreamer import Dreamer
from dreamer.algorithms.plan2explore import Plan2Explore
from dreamer.checkpoint import load_checkpoint
from dreamer.config import ConfigError, check_embedding_size
from dreamer.modules.actor import Actor
from dreamer.modules.critic import Critic
from dreamer.modules.decoder import make_decoder
from dreamer.modules.encoder import make_encoder
from dreamer.modules.ensemble import OneStepModel
from dreamer.modules.fast import accelerate
from dreamer.modules.rssm import RSSM, ContinueModel, RewardModel, WorldModel


def build_networks(config, observation_shape, action_size, discrete):
    """All networks of the configuration's algorithm, by the names that `build_algorithm` takes.

    Raises ConfigError for sizes that do not fit together.
    """
    settings = config.parameters.dreamer
    model = build_model(settings, observation_shape, action_size)
    feature_size = model.rssm.feature_size
    make_actor = partial(Actor, feature_size, action_size, discrete, **settings.agent.actor)
    make_critic = partial(Critic, feature_size, **settings.agent.critic)
    networks = {"model": model, "actor": make_actor(), "critic": make_critic()}
    if config.algorithm == "plan2explore":
        exploration, embedding_size = config.parameters.plan2explore, model.encoder.embedding_size
        sizes = feature_size, action_size, embedding_size, exploration.num_ensemble
        networks["one_step_model"] = OneStepModel(*sizes, **exploration.one_step_model)
        networks |= {"exploration_actor": make_actor(), "exploration_critic": make_critic()}
    if config.operation.fast_paths:
        networks = {name: accelerate(network) for name, network in networks.items()}
    return networks


def build_model(settings, observation_shape, action_size):
    """The world model; settings: the sub-tree `parameters.dreamer`."""
    encoder = make_encoder(observation_shape, **settings.encoder)
    check_embedding_size(settings.embedded_state_size, encoder.embedding_size)
    sizes = settings.deterministic_size, settings.stochastic_size
    rssm = RSSM(action_size, encoder.embedding_size, *sizes, **settings.rssm)
    decoder = make_decoder(rssm.feature_size, observation_shape, **settings.decoder)
    reward_model = RewardModel(rssm.feature_size, **settings.reward)
    continue_model = ContinueModel(rssm.feature_size, **settings.continue_) if settings.use_continue_flag else None
    return WorldModel(encoder, rssm, decoder, reward_model, continue_model)


def load_networks(networks, folder):
    """Load those networks that the newest checkpoint of a run has, too. Returns (iteration, env steps) of it.

    Raises CheckpointError, or ConfigError if they differ in size.
    """
    iteration, state = load_checkpoint(folder)
    saved = state["algorithm"]["networks"]
    for name in sorted(networks.keys() & saved.keys()):
        try:
            networks[name].load_state_dict(saved[name])
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"the {name} of {folder} does not fit: {reason[:300]}") from None
    return iteration, state["algorithm"]["env_steps"]


def build_algorithm(config, networks, buffer, logger, progress):
    """The configuration's algorithm; networks: as from `build_networks`, on the device to learn on."""
    parts = {"buffer": buffer, "logger": logger, "progress": progress, "pixel_norm": config.environment.pixel_norm}
    settings = {"config": config.parameters.dreamer, "operation": config.operation}
    if config.algorithm == "plan2explore":
        return Plan2Explore(exploration=config.parameters.plan2explore, **settings, **networks, **parts)
    return Dreamer(**settings, **networks, **parts)
