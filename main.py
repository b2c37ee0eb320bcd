"""Trains Dreamer or Plan2Explore: `python main.py --config dmc-walker-walk`; `--help` tells the rest."""

from dreamer.training import signals

if __name__ == "__main__":
    signals.begin()

import sys
from contextlib import closing
from pathlib import Path

from dreamer import distributed
from dreamer.build import build_algorithm, build_replay
from dreamer.config.load import dump_config, load_config, load_run_config
from dreamer.envs.calls import run_calls_within
from dreamer.envs.make import make_train_env
from dreamer.errors import CheckpointError, ConfigError, EnvError, EnvFault, NotFiniteError
from dreamer.tools.command_line import parse_arguments
from dreamer.tools.play import evaluate, report
from dreamer.tools.runs import list_runs
from dreamer.training import torch_settings
from dreamer.training.checkpoint import Checkpointer, checkpoints, last_iteration_kept, load_networks
from dreamer.training.dashboard import hyperparameters_of
from dreamer.training.device import check_precision, select_device, tune
from dreamer.training.evaluation import build_evaluations
from dreamer.training.film import draws_films
from dreamer.training.logger import Logger
from dreamer.training.messages import conclude, introduce, tell_defaults
from dreamer.training.past_configuration import PastConfiguration
from dreamer.training.progress import Progress, name_of_training
from dreamer.training.run_folder import (
    CONFIGURATION,
    ROOT,
    check_ranks,
    find_run,
    is_run,
    lock_run,
    make_named_folder,
    make_run_folder,
    named_folder,
    own_folder,
    read_settings,
    run_name,
    save_configuration,
)
from dreamer.training.seeding import GlobalRandomness, seed_everything
from dreamer.training.trainer import Trainer
from dreamer.training.versions import save_versions

ONE_LINE = (
    ConfigError,
    EnvError,
    CheckpointError,
    NotFiniteError,
    OSError,
    distributed.RankError,
)  # the message is enough


def main(arguments=None):
    """Returns the exit status: 0; 1 when a loss or gradient is no longer finite, or when the environment itself fails,
    whose traceback is told; 2 for what cannot be run (one line says why); 130 when interrupted, 143 when terminated,
    129 when the terminal is gone."""
    options = parse_arguments(arguments)
    try:
        if options.list is not None:
            print(list_runs(Path(options.list)))
        elif options.evaluate is not None:
            result = evaluate(find_run(options.evaluate), options.episodes, options.device, options.video)
            print(report(result, options.json))
        else:
            with distributed.joined():
                train(*distributed.from_first(what_to_train, options))
    except EnvFault as fault:
        print(f"{fault.trace}error: {fault}", file=sys.stderr)
        return 1
    except ONE_LINE as error:
        if str(error) or not isinstance(error, distributed.RankError):
            print(f"error: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1 if isinstance(error, NotFiniteError) else 2
    except SystemExit as stop:
        print(f"error: the environment, or what it imports, called sys.exit({stop.code!r})", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        return signals.status_of(stop)
    return 0


def what_to_train(options):
    """The configuration, the folder of the run (None: it will be named after the time), and whether there is no run in
    it yet. Raises ConfigError."""
    if options.resume is None:
        config = load_config(options.config, options.overrides)
        folder = options.folder and named_folder(options.folder, config)
        distributed.check_restart(folder)
    else:
        folder = find_run(options.resume)
        config = load_run_config(folder / CONFIGURATION, options.overrides)
    distributed.share(config)  # refused here, it is refused once
    is_new = not (folder and is_run(folder))
    if not is_new:
        check_ranks(folder)
        tell_defaults(read_settings(folder), config)
    return config, folder, is_new


def train(whole, folder, is_new):
    """From a configuration to a trained agent; the arguments are those of `what_to_train`.

    Each of several ranks takes its share of it, and keeps its replay and its checkpoints in a folder of its own.
    """
    config, first = distributed.share(whole), distributed.rank() == 0
    device, root = select_device(config.operation.device), ROOT.absolute()  # before an environment may change it
    check_precision(config.operation.precision, device)
    tune(config, device)
    seed_everything(config.operation.seed)
    run_calls_within(torch_settings.of_environments)
    films = first and draws_films(config)
    env = make_train_env(config.environment, config.operation.seed)
    algorithm = build_algorithm(config, env, device)  # world model (encoder, RSSM, decoder, heads), actor, critic
    if first and config.operation.initialize_from and (is_new or not checkpoints(folder)):
        load_networks(algorithm.networks, find_run(config.operation.initialize_from))
    distributed.take_from_first(algorithm.networks.values())
    evaluations = logger = progress = distributed.Silent()
    if first:
        evaluations = build_evaluations(config, device, films)

    settings, text = config.parameters.dreamer, dump_config(whole)
    if is_new and folder:
        folder = distributed.from_first(make_named_folder, folder, text)
    elif is_new:
        folder = distributed.from_first(make_run_folder, run_name(whole.operation), text, root)
    own = own_folder(folder)
    own.mkdir(parents=True, exist_ok=True)  # where the ranks share no disk
    with lock_run(own), closing(env), closing(evaluations):
        replay = build_replay(config, env, own, config.operation.seed, algorithm.model.rssm)
        if first:
            logger = Logger(folder, text, hyperparameters_of(whole))
            progress = Progress(settings.train_iterations, settings.max_env_steps, name_of_training(config))
        trainer = Trainer(config, algorithm, env, evaluations, replay, logger, progress)
        parts = {  # loaded in this order: first what may refuse, last what cuts files
            "configuration": PastConfiguration(whole, folder / CONFIGURATION),
            "algorithm": algorithm,
            "trainer": trainer,
            "replay": replay,
            "progress": progress,
            "env": env,
            "eval_env": evaluations,
            "random": GlobalRandomness(),
            "curves": logger,
        }
        checkpointer = Checkpointer(own, parts, config.operation.checkpoint_interval)
        with last_iteration_kept(checkpointer, folder, is_new and first, ONE_LINE):
            checkpointer.restore()
            if first:
                save_configuration(folder, text)
                save_versions(folder, trainer.iteration)
                introduce(folder, device, config, algorithm.networks, trainer.iteration, env, trainer.env_steps)
            with closing(logger), closing(progress):
                trainer.run(checkpointer)
            if first:
                average = trainer.evaluation_average.value
                conclude(folder, trainer.iteration, trainer.env_steps, average, settings.max_env_steps)


if __name__ == "__main__":
    signals.ready()
    sys.exit(main())
