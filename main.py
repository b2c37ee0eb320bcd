"""Trains Dreamer or Plan2Explore: `python main.py --config dmc-walker-walk`; `--help` tells the rest."""

import shutil
import sys
from contextlib import closing

from dreamer.algorithms.build import build_algorithm, build_networks
from dreamer.envs.envs import EnvError, is_discrete, make_envs
from dreamer.utils.buffer import ReplayBuffer
from dreamer.utils.command_line import introduce, parse_arguments
from dreamer.utils.config import ConfigError, dump_config, load_config
from dreamer.utils.device import seed_everything, select_device
from dreamer.utils.logger import Logger, make_run_folder
from dreamer.utils.progress import Progress


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
    space, action_size = env.observation_space, env.action_space.shape[0]
    networks = build_networks(config, space.shape, action_size, is_discrete(env))
    networks = {name: network.to(device) for name, network in networks.items()}
    buffer = ReplayBuffer(settings.buffer.capacity, space.shape, space.dtype, action_size, operation.seed)

    folder = make_run_folder(operation.log_dir)
    introduce(folder, device, config.environment, networks)
    logger = Logger(folder, dump_config(config))
    progress = Progress(settings.seed_episodes + settings.train_iterations * settings.num_interaction_episodes)
    algorithm = build_algorithm(config, networks, buffer, logger, progress)
    try:
        with closing(env), closing(eval_env), closing(logger), closing(progress):
            algorithm.train(env, eval_env)
    except ConfigError:  # found out while collecting the seed episodes: nothing is worth keeping
        shutil.rmtree(folder)
        raise


if __name__ == "__main__":
    sys.exit(main())
