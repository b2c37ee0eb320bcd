"""What the user types, and what a run says of itself before it starts."""

import argparse
import json
import os
import re
import shlex
import sys
from pathlib import Path

from dreamer import distributed
from dreamer.config.load import flatten
from dreamer.config.schema import PATTERNS, config_names
from dreamer.config.yaml_files import cut
from dreamer.training import program
from dreamer.training.device import describe_device
from dreamer.training.program import DIRECTORY, PYTHON, nearby
from dreamer.training.run_folder import ROOT
from dreamer.training.schedule import is_over

DESCRIPTION = """Train a world model, and an agent in its imagination, on a task of the DeepMind Control Suite, gym,
gymnasium or Atari."""
EPILOG = """examples:
  python main.py --config dmc-walker-walk
  python main.py --config dmc-walker-walk operation.seed=1 parameters.dreamer.batch_size=16
  python main.py --config dmc-walker-walk dreamer-v3 size1m   each on top of the one before
  python main.py --config quick-v3 --env my_package:Reach-v0   an environment of gymnasium
  python main.py --config runs/<run>/config.yml     the same run again, from the beginning
  python main.py --config dmc-walker-walk --folder runs/walker/seed0   there; on with it if it is there already
  python main.py --resume latest                    on with a run that was stopped
  python main.py --resume runs/<run> parameters.dreamer.train_iterations=2000
  python main.py --evaluate runs/<run> --episodes 10 --video walker.mp4
  python main.py --list                             the runs so far
  tensorboard --logdir runs                         the curves

Each run makes a folder runs/<date>_<time>_seed-<operation.seed>_<operation.log_dir>, or --folder, for its TensorBoard
events, its replay, its checkpoints, its resolved configuration (config.yml) and what it was made with
(versions.yml). What cannot be run ends with one line and exit status 2.

configs/dreamer.yml explains every key and gives its default. The configurations in configs/:
  """
SOFTWARE = "llvmpipe", "softpipe", "swrast", "SwiftShader"  # renderers that use no GPU
OWN_OBSERVATIONS = ", the observations are the environment's own"
TOLD = 12  # keys in a line
DIGITS = 9  # of a number of episodes
UPDATE = 6.5, 50 * 50  # seconds on two CPU cores, and its steps: docs/performance.md
EPISODES_ADVICE = "Raise parameters.dreamer.num_interaction_episodes, and collect_interval as many times, to use all."


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"error: {' '.join(cut(word) for word in message.split())}; --help tells more\n")


def parse_arguments(arguments=None):
    """What the command line says, by the names of its options."""
    names = "\n  ".join(config_names())
    parser = Parser(
        description=DESCRIPTION, epilog=EPILOG + names, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--config", metavar="NAME", nargs="+", help="train: files in configs/, with or without .yml, or paths"
    )
    what.add_argument("--resume", metavar="RUN", help="go on with a run: its folder, or latest")
    what.add_argument("--evaluate", metavar="RUN", help="play a run's newest checkpoint: its folder, or latest")
    what.add_argument(
        "--list", metavar="FOLDER", nargs="?", const=ROOT, help="the runs in it, or in runs/, and how far they came"
    )
    parser.add_argument("--folder", metavar="RUN", help="with --config: the run's folder; a run in it goes on")
    parser.add_argument(
        "--env", metavar="ID", help="with --config: an environment of gymnasium, such as my_package:Reach-v0"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any key of the configuration, dotted")
    watching = parser.add_argument_group("with --evaluate")
    watching.add_argument("--episodes", type=positive, help="how many to play (10)")
    watching.add_argument(
        "--video", metavar="FILE", help="film the first one and what the model makes of it (.mp4; .png: stills)"
    )
    watching.add_argument("--device", type=device, help="auto, cpu, cuda or cuda:<number> (auto)")
    watching.add_argument("--json", action="store_true", help="the result as JSON, and nothing else")
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
    if options.evaluate is None and (options.episodes or options.video or options.device or options.json):
        parser.error("--episodes, --video, --device and --json go with --evaluate")
    options.episodes, options.device = options.episodes or 10, options.device or "auto"
    return options


def settings_of(task_name):
    """Return what --env stands for, as overrides: an environment of gymnasium, seen as it observes itself."""
    name = re.sub(r"[^\w.+=-]", "-", task_name.split(":")[-1])
    return [
        "environment.benchmark=gymnasium",
        f"environment.task_name={json.dumps(task_name)}",
        "environment.from_pixels=False",
        "environment.frame_skip=1",
        f"operation.log_dir={json.dumps(name)}",
    ]


def separate_overrides(options, arguments, *names):
    """Every key=value that follows the names after one of these options is an override, in the order of all.

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


def positive(text):
    """A whole number above 0, for argparse."""
    if not (text.isdecimal() and len(text) <= DIGITS and int(text)):
        raise argparse.ArgumentTypeError(f"a whole number above 0 of up to {DIGITS} digits is wanted, not {text}")
    return int(text)


def device(text):
    """A device as the configuration has it, for argparse."""
    pattern, words = PATTERNS["device"]
    if not re.fullmatch(pattern, text):
        raise argparse.ArgumentTypeError(f"{words} is wanted, not {text}")
    return text


def introduce(folder, device, config, networks, iteration, env, env_steps=0):
    """Print where the run goes, what it runs on and how large its networks are.

    device: a torch.device. networks: by name. iteration, env_steps: how many are done already, 0 for a new run. env:
    that in which it collects.
    """
    environment, settings = config.environment, config.parameters.dreamer
    train_iterations, episodes = settings.train_iterations, settings.num_interaction_episodes
    if not environment.from_pixels:
        rendering = ("of films alone" if config.operation.video_interval else "none") + OWN_OBSERVATIONS
    elif environment.benchmark != "dmc":
        rendering = "by the environment"
    else:
        renderer = env.renderer()
        in_software = ", in software" if any(name in renderer for name in SOFTWARE) else ""
        rendering = os.environ.get("MUJOCO_GL", "MuJoCo's default") + f", {renderer}{in_software}"
    of_a_paper = settings.encoder.depth >= 32 or settings.deterministic_size >= 512
    if device.type == "cpu" and environment.from_pixels and of_a_paper:
        print(f"no GPU      {what_it_takes(config)}")
    sizes = {name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()}
    print(f"run folder  {folder}")
    if iteration >= train_iterations:
        print(f"complete    after iteration {iteration}; {train_iterations} were asked for")
    elif is_over(iteration, env_steps, train_iterations, settings.max_env_steps):
        print(f"complete    after {env_steps:,} env steps; {settings.max_env_steps:,} were asked for")
    elif iteration:
        print(f"going on    after iteration {iteration} of {train_iterations}")
    others = f", rank 0 of {distributed.count()}" if distributed.count() > 1 else ""
    print(f"device      {describe_device(device)}{others}")
    print(f"rendering   {rendering}")
    for line in env.told:
        print(line)
    print("parameters  " + ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size))
    if environment.num_envs > episodes:
        print(f"Of {environment.num_envs} environments, {episodes} collect in an iteration. {EPISODES_ADVICE}")


def what_it_takes(config):
    """Text: how long the updates of a run of the paper's sizes last on a CPU, and what suits one."""
    settings, (seconds, steps) = config.parameters.dreamer, UPDATE
    updates = settings.train_iterations * settings.collect_interval
    seconds *= settings.batch_size * settings.batch_length / steps
    hours = updates * seconds / 3600
    time = f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"
    known = not settings.train_ratio  # how many updates there are
    number, total = (f"{updates:,} updates, of ", f", take {time}") if known else ("an update takes ", "")
    quick = "quick-p2e-pendulum-swingup" if config.algorithm == "plan2explore" else "quick-pixels-ball-in-cup-catch"
    return (
        f"these sizes are meant for one: {number}at least {seconds:.2g} s on two cores{total}; "
        f"for a CPU: {program.PROGRAM} --config {quick}"
    )


def tell_defaults(known, config):
    """Print which keys a run that goes on is too old to know, and what it takes for them.

    known: what stands in its own configuration, {key: value}.
    """
    new = [f"{key}={value}" for key, value in flatten(config).items() if key not in known]
    if new and "base" not in known:
        more = f" and {len(new) - TOLD} more, as in its config.yml from now on" if len(new) > TOLD else ""
        print(f"new keys    the run is older and takes the defaults: {', '.join(new[:TOLD])}{more}")


def conclude(folder, iterations, env_steps, average, max_env_steps=None):
    """Print what a run that is complete has come to, how to look at it and how to go on.

    average: of its evaluations, as eval/return_ema20 has it, or None. max_env_steps: of its configuration.
    """
    here, runs = (shlex.quote(nearby(path, DIRECTORY)) for path in (folder, Path(folder).parent))
    evaluation = "" if average is None else f", eval/return_ema20 {average:.1f}"
    print(f"finished    {here}: iteration {iterations:,}, {env_steps:,} env steps{evaluation}")
    film = f"{program.PROGRAM} --evaluate {here} --video film.mp4"
    print(f"look at it  {film}; {PYTHON} -m tensorboard.main --logdir {runs}")
    ended_it = max_env_steps is not None and env_steps >= max_env_steps
    more = f"max_env_steps={2 * max_env_steps}" if ended_it else f"train_iterations={2 * iterations}"
    print(f"go on       {program.TRAINER} --resume {here} parameters.dreamer.{more}")
