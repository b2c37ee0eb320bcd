"""The command line of main.py."""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from dreamer.config.schema import PATTERNS, config_names
from dreamer.config.yaml_files import cut
from dreamer.training.checkpoint_file import BEST, NEWEST
from dreamer.training.run_folder import ROOT

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

configs/dreamer.yml explains every key and gives its default. The configurations in configs/:
  """
DIGITS = 9  # of a number of episodes


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {' '.join(cut(word) for word in message.split())}; --help tells more\n")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line, checked against each other. arguments: None for those of the process."""
    names = "\n  ".join(config_names())
    parser = Parser(
        description=DESCRIPTION, epilog=EPILOG + names, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--config", metavar="NAME", nargs="+", help="train: files in configs/, with or without .yml, or paths"
    )
    what.add_argument("--resume", metavar="RUN", help="resume a run: its folder, or latest")
    what.add_argument("--evaluate", metavar="RUN", help="play a run's agent: its folder, or latest")
    what.add_argument(
        "--list", metavar="FOLDER", nargs="?", const=ROOT, help="list the runs in a folder (runs/) and their progress"
    )
    parser.add_argument("--folder", metavar="RUN", help="with --config: the run's folder; a run in it is resumed")
    parser.add_argument(
        "--env", metavar="ID", help="with --config: an environment of gymnasium, such as my_package:Reach-v0"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any key of the configuration, dotted")
    watching = parser.add_argument_group("with --evaluate")
    watching.add_argument("--episodes", type=positive, help="episodes to play (10)")
    watching.add_argument(
        "--video", metavar="FILE", help="film the first episode and what the model predicts (.mp4; .png: stills)"
    )
    watching.add_argument(
        "--checkpoint", type=checkpoint, help="newest, best (by eval/return_ema20) or an iteration (newest)"
    )
    watching.add_argument("--device", type=device, help="auto, cpu, cuda or cuda:<number> (auto)")
    watching.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    options = parser.parse_intermixed_args(arguments)
    separate_overrides(options, arguments, "config")
    if options.config == []:
        parser.error("--config: a name is wanted before any key=value")
    if options.folder is not None and not (options.folder and options.config):
        parser.error("--folder names a folder, and goes with --config")
    if options.env is not None:
        if not (options.env and options.config):
            parser.error("--env names an environment, and goes with --config, such as --config quick-v3")
        options.overrides = [*settings_of(options.env), *options.overrides]
    if options.evaluate is not None and options.overrides:
        parser.error("--evaluate takes the run's own configuration, no overrides")
    if options.list is not None and options.overrides:
        parser.error("--list takes no overrides")
    given = options.episodes, options.video, options.checkpoint, options.device, options.json
    if options.evaluate is None and any(given):
        parser.error("--episodes, --video, --checkpoint, --device and --json go with --evaluate")
    options.episodes, options.device = options.episodes or 10, options.device or "auto"
    options.checkpoint = options.checkpoint or NEWEST
    return options


def settings_of(task_name: str) -> list[str]:
    """Return what --env stands for, as overrides: an environment of gymnasium, seen as it observes itself."""
    name = re.sub(r"[^\w.+=-]", "-", task_name.split(":")[-1])
    return [
        "environment.benchmark=gymnasium",
        f"environment.task_name={json.dumps(task_name)}",
        "environment.from_pixels=False",
        "environment.frame_skip=1",
        f"operation.log_dir={json.dumps(name)}",
    ]


def separate_overrides(options: argparse.Namespace, arguments: Sequence[str] | None, *names: str) -> None:
    """Move every key=value that follows one of these options to `options.overrides`, in the order of the command line.

    arguments: the words that were parsed; None: those of the process, as for argparse.
    """
    overrides = set(options.overrides)
    for option in names:
        words = getattr(options, option)
        if words is not None:
            overrides.update(word for word in words if "=" in word and not os.path.isfile(word))
            setattr(options, option, [word for word in words if word not in overrides])
    words = sys.argv[1:] if arguments is None else arguments
    options.overrides = [word for word in words if word in overrides]


def positive(text: str) -> int:
    """Return a whole number above 0, for argparse."""
    if not (text.isdecimal() and len(text) <= DIGITS and int(text)):
        raise argparse.ArgumentTypeError(f"a whole number above 0 of up to {DIGITS} digits is wanted, not {text}")
    return int(text)


def checkpoint(text: str) -> str:
    """Return which checkpoint of a run is meant, for argparse."""
    return text if text in (NEWEST, BEST) else str(positive(text))


def device(text: str) -> str:
    """Return the name of a device as the configuration has it, for argparse."""
    pattern, words = PATTERNS["device"]
    if not re.fullmatch(pattern, text):
        raise argparse.ArgumentTypeError(f"{words} is wanted, not {text}")
    return text
