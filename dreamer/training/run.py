"""Prepare, begin, restore and conclude a training run: the process, its folder, and what it opens and closes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dreamer import distributed
from dreamer.algorithms.algorithm import Algorithm
from dreamer.config.load import CONFIGURATION, Config, Source, dump_config, load_config, load_run_config
from dreamer.envs.calls import run_calls_within
from dreamer.envs.maker import Maker
from dreamer.errors import ConfigError
from dreamer.training import torch_settings
from dreamer.training.background_collection import BackgroundCollection, build_background_collection
from dreamer.training.checkpoint import Checkpointer, load_networks, saving_last_iteration
from dreamer.training.checkpoint_file import checkpoints
from dreamer.training.compiling import compiles
from dreamer.training.data_parallel import NoEvaluationRunner, NoLogger, NoProgress, check_restart, config_of_rank
from dreamer.training.device import check_precision, select_device, set_threads, tune
from dreamer.training.ending import ONE_LINE
from dreamer.training.evaluation_runner import EvaluationRunner, build_evaluation_runner
from dreamer.training.film import draws_films
from dreamer.training.logger import Logger, build_logger, check_loggers
from dreamer.training.messages import conclude, introduce, print_compiling, print_defaults, print_threads
from dreamer.training.program import resuming
from dreamer.training.progress import Progress, name_of_training
from dreamer.training.run_folder import (
    ROOT,
    check_ranks,
    find_run,
    folder_of_rank,
    is_run,
    lock_run,
    make_named_folder,
    make_run_folder,
    named_folder,
    read_settings,
    run_name,
    save_configuration,
)
from dreamer.training.saved_configuration import SavedConfiguration
from dreamer.training.seeding import GlobalRandomness, seed_everything
from dreamer.training.trainer import Trainer
from dreamer.training.versions import compiled_before, save_versions, threads_before


class TrainingRequest(NamedTuple):
    """Names a configuration to train, and perhaps a folder for the run, or a run to resume."""

    config: Source | Iterable[Source] | None = None
    overrides: Sequence[str] | Mapping[str, Any] = ()
    folder: str | None = None  # for the run; if it holds a run, that one is resumed
    resume: str | None = None  # the folder of a run, or "latest"
    maker: Maker | None = None  # for environment.benchmark=python


@contextmanager
def training_run(request: TrainingRequest) -> Iterator["Run"]:
    """Prepare this process for the requested run, and yield it as a `Run`.

    After the block, also after an exception, the checkpoint of the last finished iteration is on disk, and all that was
    opened is closed. Prints a summary of a complete run.
    """
    with distributed.process_group():
        config, folder, is_new = distributed.broadcast_result(resolve_request, request)
        run = Run(config, folder, is_new, request.maker)
        run.prepare_process()
        with run.opened:
            yield run
            run.conclude()


def resolve_request(request: TrainingRequest) -> tuple[Config, Path | None, bool]:
    """Return the configuration, the folder of the run (None: it will be named after the time), and whether it is new.

    Raises ConfigError.
    """
    folder: Path | None
    if request.resume is None:
        assert request.config is not None, "there is a configuration or a run to resume"
        config = load_config(request.config, request.overrides)
        folder = named_folder(request.folder, config) if request.folder else None
        check_restart(folder)
    else:
        folder = find_run(request.resume)
        config = load_run_config(folder / CONFIGURATION, request.overrides)
    if request.maker:
        check_maker(request.maker, config)
    check_loggers(config.operation.loggers)
    config_of_rank(config)  # validate before the workers start, so that an error is printed once
    is_new = not (folder and is_run(folder))
    if folder and not is_new:
        check_ranks(folder)
        print_defaults(read_settings(folder), config)
    return config, folder, is_new


def check_maker(maker: Maker, config: Config) -> None:
    """Raise ConfigError if the run has another environment, EnvError if `maker` cannot be sent to its processes."""
    if config.environment.benchmark != "python":
        raise ConfigError(f"env: the run's environment is {config.environment.benchmark}'s; leave env out")
    if config.environment.num_envs > 1 and not config.environment.vectorized:
        maker.check_sending("environment.num_envs")
    for key in ("background_evaluation", "background_collection"):
        if config.operation[key] is True:
            maker.check_sending(f"operation.{key}")


class Run:
    """Holds what this process opens for a training run. `run_training` calls the methods in the order of this file.

    config: this worker's share of the configuration. device: to compute on. After `begin`: evaluations, logger and
    progress, which only the first data-parallel worker has, and rank_folder, for this worker's replay and checkpoints.
    After `restore`: checkpointer.
    """

    def __init__(self, full_config: Config, folder: Path | None, is_new: bool, maker: Maker | None):
        """full_config: the run's. folder, is_new: as from `resolve_request`. maker: as in `TrainingRequest`."""
        self.full_config, self.is_new = full_config, is_new
        self.requested_folder = folder
        self.folder = folder or ROOT  # an unnamed new run gets its own in `make_folder`
        self.maker = maker
        self.maker_name = maker.name if maker else None
        self.config = config_of_rank(full_config)
        self.is_first = distributed.rank() == 0
        self.device = select_device(self.config.operation.device)
        self.root = ROOT.absolute()  # before an environment may change the working directory
        self.config_text = dump_config(full_config)
        self.opened = ExitStack()
        self.evaluations: EvaluationRunner | NoEvaluationRunner = NoEvaluationRunner()
        self.collection: BackgroundCollection | None = None
        self.logger: Logger | NoLogger = NoLogger()
        self.progress: Progress | NoProgress = NoProgress()

    def prepare_process(self) -> None:
        """Set threads, precision, seeds and rendering of this process, before an environment is made.

        Raises ConfigError.
        """
        check_precision(self.config.operation.precision, self.device)
        threads = None if self.is_new else threads_before(self.folder)
        set_threads(self.config, self.device, threads)
        if self.is_first:
            print_threads(self.device, threads)
        tune(self.config, self.device)
        seed_everything(self.config.operation.seed)
        run_calls_within(torch_settings.environment_settings)
        self.films = self.is_first and draws_films(self.config)

    def begin(self, env: Any, algorithm: Algorithm) -> None:
        """Load the networks' first weights, then make evaluations, background collection and the folder of the run.

        The folder comes after them, so that a run that cannot start leaves none. `env` is closed with the run.
        """
        self.load_first_weights(algorithm)
        if self.is_first:
            self.evaluations = build_evaluation_runner(self.config, self.device, self.films, self.maker)
        self.opened.enter_context(closing(self.evaluations))
        if self.config.operation.background_collection and self.config.parameters.dreamer.collect:
            self.collection = build_background_collection(self.config, self.device, self.maker)
            self.opened.enter_context(closing(self.collection))
        self.make_folder()
        self.opened.enter_context(lock_run(self.rank_folder))
        self.opened.enter_context(closing(env))
        if self.is_first:
            settings = self.config.parameters.dreamer
            self.logger = build_logger(self.full_config, self.folder, self.config_text)
            training = name_of_training(self.config)
            self.progress = Progress(settings.train_iterations, settings.max_env_steps, training)

    def load_first_weights(self, algorithm: Algorithm) -> None:
        """Load the weights of `initialize_from` if the run is new, then copy the first worker's weights to all."""
        origin = self.config.operation.initialize_from
        if self.is_first and origin and (self.is_new or not checkpoints(self.folder)):
            load_networks(algorithm.networks, find_run(origin))
        distributed.broadcast_parameters(algorithm.networks.values())

    def make_folder(self) -> None:
        """Make the folder of a new run, which holds its configuration, and this worker's folder in it."""
        if self.is_new and self.requested_folder:
            self.folder = distributed.broadcast_result(make_named_folder, self.requested_folder, self.config_text)
        elif self.is_new:
            name = run_name(self.full_config.operation)
            self.folder = distributed.broadcast_result(make_run_folder, name, self.config_text, self.root)
        self.rank_folder = folder_of_rank(self.folder)
        self.rank_folder.mkdir(parents=True, exist_ok=True)  # where the workers share no disk

    def restore(self, trainer: Trainer) -> None:
        """Restore the newest checkpoint of the run, if there is one, and print what will run."""
        self.trainer = trainer
        was_compiled = None if self.is_new else compiled_before(self.folder)
        trainer.learner.compiles = compiles(self.config, self.device, trainer.env.max_agent_steps, was_compiled)
        self.checkpointer = Checkpointer(self.rank_folder, self.parts(), trainer.retention)
        made_folder = self.is_new and self.is_first
        command = resuming(self.folder, self.maker_name)
        self.opened.enter_context(
            saving_last_iteration(self.checkpointer, self.folder, made_folder, explained=ONE_LINE, resume=command)
        )
        self.checkpointer.restore()
        if self.is_first:
            save_configuration(self.folder, self.config_text)
            save_versions(self.folder, trainer.iteration, trainer.learner.compiles)
            print_compiling(trainer.learner.compiles, was_compiled)
            introduce(
                self.folder,
                self.device,
                self.config,
                trainer.algorithm.networks,
                trainer.iteration,
                trainer.env,
                trainer.env_steps,
            )
        self.opened.enter_context(closing(self.logger))
        self.opened.enter_context(closing(self.progress))

    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds, in the order of loading: first what may refuse, last what cuts files."""
        return {
            "configuration": SavedConfiguration(self.full_config, self.folder / CONFIGURATION),
            "spaces": self.trainer.env.unwrapped_spaces,
            "algorithm": self.trainer.algorithm,
            "trainer": self.trainer,
            "replay": self.trainer.replay,
            "progress": self.progress,
            "env": self.trainer.env,
            "eval_env": self.evaluations,
            "random": GlobalRandomness(),
            "curves": self.logger,
        }

    def conclude(self) -> None:
        """Close the curves and the progress, and print a summary of the complete run."""
        self.progress.close()
        self.logger.close()
        if self.is_first:
            trainer = self.trainer
            average = trainer.evaluation_average.value
            max_env_steps = self.config.parameters.dreamer.max_env_steps
            conclude(self.folder, trainer.iteration, trainer.env_steps, average, max_env_steps, self.maker_name)
