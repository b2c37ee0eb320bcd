"""Parse the command line: flags, and the commands that train, play and list runs."""

import argparse
import json
import os
import sys
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from dreamer.config.load import settings_of_environment
from dreamer.config.names import families, file_names, tasks_of
from dreamer.errors import nearest
from dreamer.files import NEWEST
from dreamer.tools.argument_parser import RAW, Parser, checkpoint, device, positive, separate_overrides, split_words
from dreamer.tools.commands import COMMANDS
from dreamer.training.program import IS_CLONE

DESCRIPTION = """Train a world model, and an agent in its imagination, on a task of the DeepMind Control Suite, gym,
gymnasium or Atari."""
EPILOG = """examples:
  python main.py --config dmc-walker-walk
  python main.py --config dmc-walker-walk operation.seed=1 parameters.dreamer.batch_size=16
  python main.py --config dmc-walker-walk dreamer-v3 size1m   later names override earlier ones
  python main.py --config quick-v3 --env my_package:Reach-v0   an environment of gymnasium
  python main.py --config runs/<run>/config.yml     the same run again, from the beginning
  python main.py --config dmc-walker-walk --folder runs/walker/seed0   start it there, or resume it
  python main.py --resume latest                    resume a run that was stopped
  python main.py --resume runs/<run> parameters.dreamer.train_iterations=2000
  python main.py --evaluate runs/<run> --episodes 10 --video walker.mp4
  python main.py --list                             the runs so far
  tensorboard --logdir runs                         the curves

Each run makes a folder runs/<date>_<time>_seed-<operation.seed>_<operation.log_dir>, or --folder, for its TensorBoard
events, replay, checkpoints, resolved configuration (config.yml) and the versions of its packages (versions.yml).
Invalid input ends with one line and exit status 2.

Commands do the same as these flags and more, as in "dreamer train dmc-walker-walk"; dreamer is short for python -m
dreamer, and "dreamer <command> --help" shows a command's options:
  {commands}

configs/dreamer.yml explains every key and gives its default. The configurations in configs/:
  {configurations}
"""
AGENT = "a run's folder, or latest; an exported agent: its file, hf://user/name, cartpole, ball-in-cup"
RESUME = "resume a run: its folder, or latest"
DEFAULTS: dict[str, Any] = {  # every option that `execute` reads
    **dict.fromkeys(("config", "resume", "evaluate", "list", "folder", "video")),
    **{"overrides": [], "episodes": 10, "checkpoint": NEWEST, "device": "auto", "json": False, "shows": False},
}


def parse_arguments(arguments: Sequence[str] | None = None) -> Namespace:
    """Return the options of a command line with flags, checked against each other. arguments: None for `sys.argv`."""
    words = sys.argv[1:] if arguments is None else arguments
    commands = "\n  ".join(f"{name:11}{command.help}" for name, command in COMMANDS.items())
    epilog = EPILOG.format(commands=commands, configurations=listed_configurations())
    if not IS_CLONE:
        epilog = epilog.replace("python main.py", "dreamer")
    name = "dreamer" if os.path.basename(sys.argv[0]) == "__main__.py" else None  # None: as it was called
    parser = Parser(name, description=DESCRIPTION, epilog=epilog, formatter_class=RAW)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument(
        "--config", metavar="NAME", nargs="+", help="train: files in configs/, with or without .yml, or paths"
    )
    action.add_argument("--resume", metavar="RUN", help=RESUME)
    action.add_argument("--evaluate", metavar="RUN", help=f"play an agent: {AGENT}")
    action.add_argument(
        "--list", metavar="FOLDER", nargs="?", const="runs", help="list the runs in a folder (runs/) and their progress"
    )
    add_new_run_options(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any key of the configuration, dotted")
    add_evaluation_options(parser.add_argument_group("with --evaluate"))
    if words and words[0][:1] != "-" and "=" not in words[0]:
        parser.error(f"no command {words[0]}{nearest(words[0], COMMANDS)}")
    options = parser.parse_intermixed_args(words)
    separate_overrides(options, words, "config")
    if options.config == []:
        parser.error("--config: expected a name before any key=value")
    check_new_run_options(parser, options)
    if options.evaluate is not None and options.overrides:
        parser.error("--evaluate takes the run's own configuration, no overrides")
    if options.list is not None and options.overrides:
        parser.error("--list takes no overrides")
    evaluation_options = options.episodes, options.video, options.checkpoint, options.device, options.json
    if options.evaluate is None and any(evaluation_options):
        parser.error("--episodes, --video, --checkpoint, --device and --json go with --evaluate")
    return with_defaults(options)


def parse_training(arguments: Sequence[str]) -> Namespace:
    """Return the options of `dreamer train`: names of configurations or a run to resume, and key=value overrides."""
    description = "Train an agent on one or several configurations, each overriding the ones before, or resume a run."
    epilog = f"The configurations in configs/:\n  {listed_configurations()}"
    parser = Parser("dreamer train", description=description, epilog=epilog, formatter_class=RAW)
    help_ = "files in configs/, with or without .yml, or paths; any key of the configuration, dotted"
    parser.add_argument("words", nargs="*", metavar="NAME|key=value", help=help_)
    parser.add_argument("--resume", metavar="RUN", help=RESUME)
    add_new_run_options(parser)
    options = parser.parse_intermixed_args(arguments)
    configurations, options.overrides = split_words(options.words)
    options.config = configurations or None
    if (options.config is None) == (options.resume is None):
        parser.error("expected names of configurations, or --resume RUN")
    check_new_run_options(parser, options)
    return with_defaults(options)


def parse_evaluation(arguments: Sequence[str]) -> Namespace:
    """Return the options of `dreamer evaluate`."""
    parser = Parser("dreamer evaluate", description="Play a run's agent as training evaluates it.")
    parser.add_argument("evaluate", metavar="AGENT", help=AGENT)
    add_evaluation_options(parser)
    return with_defaults(parser.parse_args(arguments))


def parse_playing(arguments: Sequence[str]) -> Namespace:
    """Return the options of `dreamer play`: an evaluation of one episode whose film is shown."""
    description = "Play one episode, film it and what the model predicts, and open the film where there is a display."
    parser = Parser("dreamer play", description=description)
    parser.add_argument("evaluate", metavar="AGENT", help=AGENT)
    parser.add_argument("--video", metavar="FILE", default="play.mp4", help="the film (%(default)s; .png: stills)")
    add_checkpoint_options(parser)
    parser.set_defaults(episodes=1, shows=True)
    return with_defaults(parser.parse_args(arguments))


def parse_listing(arguments: Sequence[str]) -> Namespace:
    """Return the options of `dreamer list`."""
    parser = Parser("dreamer list", description="List the runs in a folder and how far they came.")
    parser.add_argument(
        "list", metavar="FOLDER", nargs="?", default="runs", help="the folder of the runs (%(default)s)"
    )
    return with_defaults(parser.parse_args(arguments))


def listed_configurations() -> str:
    """Return the names of the configurations as text: a line for each file, and wrapped lines for each family."""
    lines = file_names()
    for family in families():
        tasks = ", ".join(name.removeprefix(f"{family}-") for name in tasks_of(family)) or "any id of its package"
        lines += textwrap.wrap(f"{family}-<task>: {tasks}", 116, subsequent_indent="    ", break_on_hyphens=False)
    return "\n  ".join([*lines, "p2e-<name of any of these>: Plan2Explore on it"])


def add_new_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a new run."""
    parser.add_argument(
        "--folder", metavar="RUN", help="with a configuration: the run's folder; a run in it is resumed"
    )
    parser.add_argument(
        "--env",
        metavar="ID",
        help="with a configuration: an id of gymnasium, my_package:Reach-v0, or my_module:function",
    )


def check_new_run_options(parser: Parser, options: Namespace) -> None:
    """Exit if --folder or --env has no configuration. Turn --env into the overrides that select the environment."""
    if options.folder is not None and not (options.folder and options.config):
        parser.error("--folder names a folder, and goes with --config")
    if options.env is not None:
        if not (options.env and options.config):
            parser.error("--env names an environment, and goes with --config, such as --config quick-v3")
        settings = settings_of_environment("gymnasium", options.env)
        env_overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        options.overrides = [*env_overrides, *options.overrides]


def add_evaluation_options(parser: argparse._ActionsContainer) -> None:
    """Add the options of an evaluation."""
    parser.add_argument("--episodes", type=positive, help="episodes to play (10)")
    parser.add_argument(
        "--video", metavar="FILE", help="film the first episode and what the model predicts (.mp4; .png: stills)"
    )
    add_checkpoint_options(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")


def add_checkpoint_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that choose the checkpoint to play, and the device."""
    parser.add_argument(
        "--checkpoint", type=checkpoint, help="newest, best (by eval/return_ema20) or an iteration (newest)"
    )
    parser.add_argument("--device", type=device, help="auto, cpu, cuda or cuda:<number> (auto)")


def with_defaults(options: Namespace) -> Namespace:
    """Return all options that `execute` reads, with defaults for those that were not given."""
    values = dict(DEFAULTS)
    for name in DEFAULTS:
        if getattr(options, name, None) is not None:
            values[name] = getattr(options, name)
    return Namespace(**values)
