"""Many runs: configurations, each with several seeds and with some values of keys, on this machine or a cluster (Ray).

  python -m dreamer sweep --config dmc-walker-walk dmc-cheetah-run --seeds 5 --name v1 --jobs 2
  python -m dreamer sweep --config dmc-walker-walk --with dreamer-v3 size1m --seeds 3 --name v3 operation.device=cuda
  python -m dreamer sweep --config dmc-walker-walk --vary parameters.dreamer.discount=0.99,0.995 --name discount
  python -m dreamer sweep --config dmc-walker-walk --seeds 5 --name v1 --list > commands.txt    for Slurm

Each run has a folder runs/<name>/<config>[_key=value]_seed<k> and, beside it, a log file. The first seed of all comes
before the second of any. The same command again goes on with what was stopped, killed or has failed. docs/sweeps.md
tells the rest.
"""

from dreamer.training import signals

if __name__ == "__main__":
    signals.begin()

import argparse
import itertools
import os
import re
import shlex
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from dreamer.config.load import load_config
from dreamer.errors import ConfigError
from dreamer.tools.command_line import Parser, positive, separate_overrides
from dreamer.tools.runs import read_progress
from dreamer.tools.sweep_display import Display
from dreamer.tools.sweep_processes import Processes, places
from dreamer.training import program
from dreamer.training.program import DIRECTORY, MAIN, PYTHON, nearby
from dreamer.training.run_folder import ROOT, is_run, named_folder
from dreamer.training.schedule import is_over

UNSAFE = re.compile(r"[^\w.+=-]+")  # in the name of a folder
SEED = "operation.seed"
WAIT = 1  # second between two looks at the runs
VARY = "a run for each value; repeated, for each combination"


class Run(NamedTuple):
    """A run of a sweep."""

    folder: Path  # absolute
    arguments: tuple  # of main.py, the folder among them
    iterations: int  # that it is to have in the end
    max_env_steps: int | None  # or so many env steps, if that is sooner

    @property
    def name(self):
        return self.folder.name

    @property
    def log(self):
        """Beside its folder, which holds nothing before the run begins."""
        return self.folder.with_name(f"{self.name}.log")

    def is_complete(self):
        if not is_run(self.folder):
            return False
        iteration, env_steps, _ = read_progress(self.folder)
        return is_over(iteration, env_steps, self.iterations, self.max_env_steps)


def main(arguments=None):
    """Returns the exit status: 0; 1 when a run has failed; 2 for what cannot be run (one line says why, and nothing was
    started); 130, 143 or 129 when stopped by Ctrl-C, SIGTERM or the end of the terminal."""
    options = parse_arguments(arguments)
    try:
        runs = plan(options)
        if options.list:
            print("\n".join(f"{program.PROGRAM} {shlex.join(run.arguments)}" for run in runs))
            return 0
        return sweep(runs, options)
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        words = sys.argv[1:] if arguments is None else arguments
        print(f"stopped; to resume: {PYTHON} -m dreamer sweep {shlex.join(words)}", file=sys.stderr)
        return signals.status_of(stop)


def parse_arguments(arguments=None):
    """What the command line says, by the names of its options."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("python -m dreamer sweep", description=__doc__, formatter_class=raw)
    parser.add_argument(
        "--config", metavar="NAME", nargs="+", required=True, help="each is a run: files in configs/, or paths"
    )
    parser.add_argument("--seeds", type=positive, default=1, metavar="N", help="of each run: 0 to N-1 (%(default)s)")
    parser.add_argument("--name", type=name, required=True, help="of the folder in runs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any key of the configuration, dotted")
    parser.add_argument(
        "--with", dest="above", metavar="NAME", nargs="+", default=[], help="configurations on top of each"
    )
    parser.add_argument("--vary", type=variation, metavar="KEY=A,B", action="append", default=[], help=VARY)
    parser.add_argument("--jobs", type=positive, metavar="N", help="runs at once on this machine (what finds room)")
    parser.add_argument("--gpus-per-run", type=gpus, metavar="N", help="such as 0.25 (1 if there are any)")
    parser.add_argument("--cpus-per-run", type=positive, default=1, metavar="N", help="its threads, too (%(default)s)")
    parser.add_argument("--address", help="of a Ray cluster, or auto; without it, this machine, and no Ray")
    parser.add_argument("--retries", type=count, default=3, metavar="N", help="of a run that is lost (%(default)s)")
    parser.add_argument("--list", action="store_true", help="print the runs as commands, one a line, and start none")
    options = parser.parse_intermixed_args(arguments)
    separate_overrides(options, arguments, "config", "above")
    if not options.config:
        parser.error("--config: a name is wanted before any key=value")
    keys = [key for key, _ in options.vary]
    if SEED in [text.partition("=")[0] for text in options.overrides] + keys:
        parser.error(f"{SEED}: it is what --seeds counts")
    if len(set(keys)) < len(keys):
        parser.error("--vary: a key is there twice")
    if options.jobs and options.address:
        parser.error("--jobs is of this machine; a cluster does as many runs at once as find room")
    return options


def name(text):
    """The name of a folder, for argparse."""
    if not text.strip(".") or UNSAFE.search(text):
        raise argparse.ArgumentTypeError(f"letters, digits and any of _ . + = - are wanted, not {text}")
    return text


def variation(text):
    """(key, its values), for argparse."""
    key, _, values = text.partition("=")
    values = values.split(",")
    if not key or not all(values) or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"key=value,value is wanted, each value once, not {text}")
    return key, values


def gpus(text):
    """How many GPUs, for argparse: as Ray has them, a part of one or whole ones."""
    if not re.fullmatch(r"\d*\.?\d+", text) or float(text) > 1 and float(text) % 1:
        raise argparse.ArgumentTypeError(f"a whole number or a part of 1 is wanted, not {text}")
    return float(text)


def count(text):
    """A whole number, for argparse."""
    return 0 if text == "0" else positive(text)


def plan(options):
    """The `Run`s of a sweep, the first seed of all before the second of any.

    Raises ConfigError for a configuration that cannot work, or that a run which is there already does not have.
    """
    keys, values = [key for key, _ in options.vary], [values for _, values in options.vary]
    labels = [key.split(".")[-1] for key in keys]
    labels = [key if labels.count(label) > 1 else label for key, label in zip(keys, labels, strict=True)]
    kinds = []  # of runs: the beginning of the folder's name, the arguments, the configuration
    for config, chosen in itertools.product(options.config, [*itertools.product(*values)]):
        varied = zip(keys, labels, chosen, strict=True)
        names, overrides, parts = [config, *options.above], list(options.overrides), [Path(config).stem]
        for key, label, value in varied:
            overrides.append(f"{key}={value}")
            parts.append(f"{label}={value}")
        kinds.append(("_".join(parts), ["--config", *names, *overrides], load_config(names, overrides)))
    runs = {}
    for seed, (stem, arguments, config) in itertools.product(range(options.seeds), kinds):
        folder = str(ROOT / options.name / UNSAFE.sub("-", f"{stem}_seed{seed}"))
        if folder in runs:
            raise ConfigError(f"two runs would have the folder {folder}")
        config.operation.seed = seed
        arguments = (*arguments, f"{SEED}={seed}", "--folder", folder)
        settings = config.parameters.dreamer
        length = settings.train_iterations, settings.max_env_steps
        runs[folder] = Run(checked(folder, config), arguments, *length)
    return list(runs.values())


def checked(folder, config):
    """The folder of a run as a path. Raises ConfigError, which names it, unless the run can begin or go on there."""
    try:
        return named_folder(folder, config)
    except ConfigError as error:
        raise ConfigError(str(error) if folder in str(error) else f"{folder}: {error}") from None


def sweep(runs, options):
    """Do what is left of them. Returns the exit status."""
    waiting = [run for run in runs if not run.is_complete()]
    tasks = start(waiting, options) if waiting else None
    display = Display(runs, waiting)
    with closing(display):
        try:
            while tasks and not tasks.wait(WAIT):
                display.show(tasks)
        except (KeyboardInterrupt, OSError):
            display.say("stopping: each run saves its last iteration; again: at once")
            with suppress(KeyboardInterrupt):
                tasks.stop()
            raise
        if tasks:
            display.show(tasks)
    print(f"look at it  {PYTHON} -m dreamer plot {shlex.quote(display.folder)} --table", file=sys.stderr)
    return int("failed" in display.states.values())


def start(runs, options):
    """Return the runs as tasks, none of which is begun. Raises ConfigError where there is no room for any."""
    if not options.address:
        tasks = Processes(runs, places(options.jobs, options.cpus_per_run, options.gpus_per_run), options.retries)
    else:
        tasks = start_on_ray(runs, options)
    runs[0].folder.parent.mkdir(parents=True, exist_ok=True)
    return tasks


def start_on_ray(runs, options):
    """The same on a Ray cluster. Raises ConfigError if Ray is not installed or not there."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # else it looks a quarter of an hour for a cluster
    try:
        from dreamer.tools.sweep_ray import RayTasks, connect
    except ModuleNotFoundError:
        needed = nearby(MAIN.with_name("requirements-sweep.txt"), DIRECTORY)
        raise ConfigError(f"Ray is not installed: {PYTHON} -m pip install -r {needed}; or no --address") from None
    share = connect(options.address, options.cpus_per_run, options.gpus_per_run)
    signals.ready()  # Ray has put handlers of its own in the place of these
    return RayTasks(runs, share, options.retries)


if __name__ == "__main__":
    signals.ready()
    sys.exit(main())
