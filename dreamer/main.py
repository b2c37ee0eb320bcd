"""Training from its beginning to its end: what main.py calls, and `train` for programs in Python."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dreamer.build import assemble_algorithm, build_actor_critic, build_replay, build_world_model
from dreamer.config.load import Source, settings_of_environment
from dreamer.envs.make import make_train_env
from dreamer.envs.maker import Maker
from dreamer.errors import ConfigError
from dreamer.training.device import preserved_precision
from dreamer.training.offline import fill
from dreamer.training.run import TrainingRequest, training_run
from dreamer.training.seeding import seeded_randomness
from dreamer.training.trainer import Trainer

if TYPE_CHECKING:
    from dreamer.agent import Agent


@dataclass(frozen=True)
class TrainedRun:
    """The result of a training run."""

    folder: Path
    iterations: int
    env_steps: int
    evaluation: float | None  # moving average of the evaluations' returns, eval/return_ema20; None: there was none

    def agent(self, **options: Any) -> "Agent":
        """Return the trained agent. options: of `Agent.load`."""
        from dreamer.agent import Agent  # late: training does not need it

        return Agent.load(self.folder, **options)


def train(
    config: Source | Sequence[Source] | None = None,
    *,
    env: str | Callable[..., Any] | None = None,
    folder: str | Path | None = None,
    seed: int | None = None,
    resume: str | Path | None = None,
    **overrides: Any,
) -> TrainedRun:
    """Train an agent as the command line does, bit for bit. Return the run's folder, progress and evaluation.

    config: a configuration's name or path, a mapping of what could stand in its file, or several, each on top of the
    one before. env: the id of an environment of gymnasium, or a function that makes one, which may take `render_mode`;
    it must make a new one at each call, and a run resumes only with it. folder: of the run; a run in it is resumed.
    resume: a run's folder, or "latest", in place of a configuration. overrides: values of dotted keys, as in
    **{"parameters.dreamer.batch_size": 8}.

    Afterwards torch's threads and precision and the global random numbers are as before. After an exception,
    KeyboardInterrupt too, the last finished iteration is on the disk.

    Raises ConfigError, CheckpointError, EnvError, EnvFault, NotFiniteError, OSError.
    """
    if (config is None) == (resume is None):
        raise ConfigError("train: no configuration; name one, such as 'quick-cartpole-swingup', or resume='runs/…'")
    if resume is not None and (folder is not None or isinstance(env, str)):
        raise ConfigError("train: resume takes the run's own folder and environment; leave out folder and the id")
    settings: dict[str, Any] = {} if seed is None else {"operation.seed": seed}
    maker = Maker(env) if env is not None and not isinstance(env, str) else None
    if isinstance(env, str):
        settings |= settings_of_environment("gymnasium", env)
    elif maker and resume is None:
        settings |= settings_of_environment("python", maker.name)
    request = TrainingRequest(
        config,
        settings | overrides,
        folder=None if folder is None else str(folder),
        resume=None if resume is None else str(resume),
        maker=maker,
    )
    with preserved_process_settings():
        return run_training(request)


@contextmanager
def preserved_process_settings() -> Iterator[None]:
    """Restore torch's threads and precision and the global random numbers after the block.

    Else the next run of this process would take the settings of this one for the user's own.
    """
    threads = torch.get_num_threads()
    with preserved_precision(), seeded_randomness(0):
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def run_training(request: TrainingRequest) -> TrainedRun:
    """Train an agent: a new one, or the one of a run that is resumed."""
    with training_run(request) as run:
        config, device, seed = run.config, run.device, run.config.operation.seed
        env = make_train_env(config.environment, seed, run.maker)
        model = build_world_model(config, env, device)  # encoder, RSSM, decoder, reward model, continue model
        actor_critic = build_actor_critic(config, env, device)
        algorithm = assemble_algorithm(config, env, device, model, actor_critic)
        run.begin(env, algorithm)  # makes the folder; what cannot be built has failed before
        replay = build_replay(config, env, run.rank_folder, seed, model.rssm)
        trainer = Trainer(config, algorithm, env, run.evaluations, replay, run.logger, run.progress, run.collection)
        run.restore(trainer)
        if trainer.iteration == 0:
            fill(replay, config, env)
        trainer.run(run.checkpointer)
    return TrainedRun(run.folder, trainer.iteration, trainer.env_steps, trainer.evaluation_average.value)
