"""Trains Dreamer or Plan2Explore: `python main.py --config dmc-walker-walk`; `--help` tells the rest."""

import shutil
import signal
import sys
from contextlib import closing

from dreamer.background import BackgroundEvaluator
from dreamer.build import build_algorithm, build_networks, load_networks
from dreamer.checkpoint import Checkpointer, CheckpointError, checkpoints
from dreamer.command_line import introduce, parse_arguments
from dreamer.config import ConfigError, dump_config, load_config, load_run_config
from dreamer.device import select_device
from dreamer.envs.make import EnvError, is_discrete, make_train_env
from dreamer.evaluation import build_evaluator, evaluate, report
from dreamer.logger import Logger
from dreamer.metrics import NotFiniteError
from dreamer.progress import Progress
from dreamer.replay import ReplayBuffer
from dreamer.run_folder import CONFIGURATION, find_run, lock_run, make_run_folder, save_configuration
from dreamer.seeding import GlobalRandomness, seed_everything
from dreamer.speed import tune_for


def main(arguments=None):
    """Returns the exit status: 0; 1 when a loss or gradient is no longer finite; 2 for what cannot be run
    (one line says why); 130 when interrupted, 143 when terminated."""
    options = parse_arguments(arguments)
    try:
        if options.evaluate:
            result = evaluate(find_run(options.evaluate), options.episodes, options.device, options.video)
            print(report(result, options.json))
        elif options.resume:
            folder = find_run(options.resume)
            train(load_run_config(folder / CONFIGURATION, options.overrides), folder)
        else:
            train(load_config(options.config, options.overrides))
    except (ConfigError, EnvError, CheckpointError, NotFiniteError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, NotFiniteError) else 2
    except KeyboardInterrupt as stop:
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    return 0


def train(config, folder=None):
    """Build the parts and hand them to the algorithm. folder: of a run to go on with; without it, a new one starts."""
    operation, settings = config.operation, config.parameters.dreamer
    device = select_device(operation.device)
    tune_for(config, device)
    seed_everything(operation.seed)
    env = make_train_env(config.environment, operation.seed)
    space, action_size = env.observation_space, env.action_space.shape[0]
    networks = build_networks(config, space.shape, action_size, is_discrete(env))
    if operation.initialize_from and not (folder and checkpoints(folder)):
        load_networks(networks, find_run(operation.initialize_from))
    networks = {name: network.to(device) for name, network in networks.items()}
    make_evaluator = BackgroundEvaluator if operation.background_evaluation else build_evaluator
    evaluator = make_evaluator(config, device)

    is_new, folder = folder is None, folder or make_run_folder(operation.log_dir)
    episodes = settings.seed_episodes + settings.train_iterations * settings.num_interaction_episodes
    with lock_run(folder), closing(env), closing(evaluator):
        logger, progress = Logger(folder, dump_config(config)), Progress(episodes)
        buffer = ReplayBuffer(folder, settings.buffer.capacity, space.shape, space.dtype, action_size, operation.seed)
        algorithm = build_algorithm(config, networks, buffer, logger, progress)
        parts = {"algorithm": algorithm, "replay": buffer, "curves": logger, "progress": progress}
        parts |= {"env": env, "eval_env": evaluator, "random": GlobalRandomness()}
        checkpointer = Checkpointer(folder, parts, operation.checkpoint_interval)
        checkpointer.restore()
        save_configuration(folder, dump_config(config))
        introduce(folder, device, config.environment, networks, algorithm.iteration, settings)
        try:
            with closing(logger), closing(progress):
                algorithm.train(env, evaluator, checkpointer)
        except KeyboardInterrupt:
            checkpointer.write()
            print(f"stopped; to go on: python main.py --resume {folder}", file=sys.stderr)
            raise
        except ConfigError:  # found out while collecting the seed episodes: nothing is worth keeping
            if is_new:
                shutil.rmtree(folder)
            raise


def terminate(number, frame):
    """SIGTERM stops a run as Ctrl-C does."""
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminate)
    sys.exit(main())
