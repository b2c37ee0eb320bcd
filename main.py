"""Trains Dreamer: `python main.py --config dmc-walker-walk`; `--help` tells the rest."""

import shutil
import sys
from contextlib import closing

from dreamer.algorithms.dreamer import Dreamer
from dreamer.envs.envs import EnvError, is_discrete, make_envs
from dreamer.modules.actor import Actor
from dreamer.modules.critic import Critic
from dreamer.modules.decoder import make_decoder
from dreamer.modules.encoder import make_encoder
from dreamer.modules.model import RSSM, ContinueModel, RewardModel, WorldModel
from dreamer.utils.buffer import ReplayBuffer
from dreamer.utils.command_line import introduce, parse_arguments
from dreamer.utils.config import ConfigError, check_embedding_size, dump_config, load_config
from dreamer.utils.device import seed_everything, select_device
from dreamer.utils.logger import Logger, make_run_folder
from dreamer.utils.progress import Progress

ALGORITHMS = {"dreamer-v1": Dreamer}


def main(arguments=None):
    """Returns the exit status: 0, 2 for what cannot be run (one line says why), 130 when interrupted."""
    options = parse_arguments(arguments)
    try:
        train(load_config(options.config, options.overrides))
    except (ConfigError, EnvError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def train(config):
    """Build the parts and hand them to the algorithm."""
    operation, settings = config.operation, config.parameters.dreamer
    device = select_device(operation.device)
    seed_everything(operation.seed)
    env, eval_env = make_envs(config.environment, operation.seed)
    model, actor, critic = (network.to(device) for network in build_networks(settings, env))
    space, action_size = env.observation_space, env.action_space.shape[0]
    buffer = ReplayBuffer(settings.buffer.capacity, space.shape, space.dtype, action_size, operation.seed)

    folder = make_run_folder(operation.log_dir)
    introduce(folder, device, config.environment, {"model": model, "actor": actor, "critic": critic})
    logger = Logger(folder, dump_config(config))
    progress = Progress(settings.seed_episodes + settings.train_iterations * settings.num_interaction_episodes)
    reports = {"logger": logger, "progress": progress, "video_interval": operation.video_interval}
    pixel_norm = config.environment.pixel_norm
    algorithm = ALGORITHMS[config.algorithm](settings, model, actor, critic, buffer, pixel_norm=pixel_norm, **reports)
    try:
        with closing(env), closing(eval_env), closing(logger), closing(progress):
            algorithm.train(env, eval_env)
    except ConfigError:  # found out while collecting the seed episodes: nothing is worth keeping
        shutil.rmtree(folder)
        raise


def build_networks(settings, env):
    """The world model, the actor and the critic. Sizes that follow from others are derived here."""
    observation_shape, action_size = env.observation_space.shape, env.action_space.shape[0]
    encoder = make_encoder(observation_shape, **settings.encoder)
    check_embedding_size(settings.embedded_state_size, encoder.embedding_size)
    sizes = settings.deterministic_size, settings.stochastic_size
    rssm = RSSM(action_size, encoder.embedding_size, *sizes, **settings.rssm)
    feature_size = rssm.feature_size
    decoder = make_decoder(feature_size, observation_shape, **settings.decoder)
    reward_model = RewardModel(feature_size, **settings.reward)
    continue_model = ContinueModel(feature_size, **settings.continue_) if settings.use_continue_flag else None
    model = WorldModel(encoder, rssm, decoder, reward_model, continue_model)
    actor = Actor(feature_size, action_size, is_discrete(env), **settings.agent.actor)
    return model, actor, Critic(feature_size, **settings.agent.critic)


if __name__ == "__main__":
    sys.exit(main())
