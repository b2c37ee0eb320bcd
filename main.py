"""Train Dreamer or Plan2Explore: `python main.py --config dmc-walker-walk`; `--help` tells the rest."""

from dreamer.training import signals

if __name__ == "__main__":
    signals.begin()

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from dreamer.build import assemble_algorithm, build_actor_critic, build_replay, build_world_model
from dreamer.envs.make import make_train_env
from dreamer.tools.command_line import parse_arguments
from dreamer.tools.play import evaluate, report
from dreamer.tools.runs import list_runs
from dreamer.training.ending import exit_status
from dreamer.training.run import running
from dreamer.training.run_folder import find_run
from dreamer.training.trainer import Trainer


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for. Return the exit status, which `exit_status` explains."""
    return exit_status(obey, parse_arguments(arguments))


def obey(options: Namespace) -> None:
    """List runs, play a run or train, by the options of the command line."""
    if options.list is not None:
        print(list_runs(Path(options.list)))
    elif options.evaluate is not None:
        result = evaluate(
            find_run(options.evaluate), options.episodes, options.device, options.video, options.checkpoint
        )
        print(report(result, options.json))
    else:
        train(options)


def train(options: Namespace) -> None:
    """Train an agent: a new one, or the one of a run that is resumed."""
    with running(options) as run:
        config, device, seed = run.config, run.device, run.config.operation.seed
        env = make_train_env(config.environment, seed)
        model = build_world_model(config, env, device)  # encoder, RSSM, decoder, reward model, continue model
        actor_critic = build_actor_critic(config, env, device)
        algorithm = assemble_algorithm(config, env, device, model, actor_critic)
        run.begin(env, algorithm)  # makes the folder: whatever cannot be made has failed before
        replay = build_replay(config, env, run.own_folder, seed, model.rssm)
        trainer = Trainer(config, algorithm, env, run.evaluations, replay, run.logger, run.progress)
        run.restore(trainer)
        trainer.run(run.checkpointer)


if __name__ == "__main__":
    signals.ready()
    sys.exit(main())
