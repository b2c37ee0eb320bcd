"""Train many runs: configurations with several seeds and several values of keys, on this machine or on a Ray cluster.

  python -m dreamer sweep --config dmc-walker-walk dmc-cheetah-run --seeds 5 --name v1 --jobs 2
  python -m dreamer sweep --config dmc-walker-walk --with dreamer-v3 size1m --seeds 3 --name v3 operation.device=cuda
  python -m dreamer sweep --config dmc-walker-walk --vary parameters.dreamer.discount=0.99,0.995 --name discount
  python -m dreamer sweep --config dmc-walker-walk --seeds 5 --name v1 --list > commands.txt    for Slurm

Each run has a folder runs/<name>/<config>[_key=value]_seed<k> and a log file beside it. All runs with seed 0 start
before any with seed 1. The same command again resumes the runs that were stopped, were killed or have failed. See
docs/sweeps.md.
"""

import argparse
import itertools
import os
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from dreamer.config.load import Config, load_config
from dreamer.errors import ConfigError, pip_install
from dreamer.tools.argument_parser import Parser, positive, separate_overrides
from dreamer.tools.runs import read_progress
from dreamer.tools.sweep_display import Display
from dreamer.tools.sweep_processes import Processes, Tasks, run_environments
from dreamer.training import program, signals
from dreamer.training.program import PYTHON
from dreamer.training.run_folder import ROOT, is_run, named_folder
from dreamer.training.schedule import is_over

UNSAFE = re.compile(r"[^\w.+=-]+")  # in the name of a folder
SEED = "operation.seed"
POLL_SECONDS = 1  # between two polls of the runs
VARY = "one run for each value; repeated: one for each combination"


class Run(NamedTuple):
    """A run of a sweep."""

    folder: Path  # absolute
    arguments: tuple[str, ...]  # of main.py, --folder among them
    iterations: int  # of a complete run
    max_env_steps: int | None  # a run that reaches them is complete, too

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def log(self) -> Path:
        """The log file beside the folder, which must be empty before the run begins."""
        return self.folder.with_name(f"{self.name}.log")

    def is_complete(self) -> bool:
        if not is_run(self.folder):
            return False
        iteration, env_steps, _ = read_progress(self.folder)
        return is_over(iteration, env_steps, self.iterations, self.max_env_steps)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep and return the exit status.

    It is 0 on success; 1 if a run has failed; 2 if nothing can be started (one line says why); 130, 143 or 129 after
    Ctrl-C, SIGTERM or SIGHUP.
    """
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


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line. arguments: None for `sys.argv`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("python -m dreamer sweep", description=__doc__, formatter_class=raw)
    parser.add_argument(
        "--config", metavar="NAME", nargs="+", required=True, help="one run for each: files in configs/, or paths"
    )
    parser.add_argument("--seeds", type=positive, default=1, metavar="N", help="seeds 0 to N-1 (%(default)s)")
    parser.add_argument("--name", type=name, required=True, help="the folder of the sweep in runs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any key of the configuration, dotted")
    parser.add_argument(
        "--with", dest="further_configs", metavar="NAME", nargs="+", default=[], help="configurations on top of each"
    )
    parser.add_argument("--vary", type=variation, metavar="KEY=A,B", action="append", default=[], help=VARY)
    parser.add_argument("--jobs", type=positive, metavar="N", help="runs at once on this machine (all that fit)")
    parser.add_argument("--gpus-per-run", type=gpus, metavar="N", help="such as 0.25 (1 if there are any)")
    parser.add_argument("--cpus-per-run", type=positive, default=1, metavar="N", help="CPUs and threads (%(default)s)")
    parser.add_argument("--address", help="a Ray cluster, or auto; without it: this machine, no Ray")
    parser.add_argument("--retries", type=count, default=3, metavar="N", help="restarts of a lost run (%(default)s)")
    parser.add_argument("--list", action="store_true", help="print one command a run and start none")
    options = parser.parse_intermixed_args(arguments)
    separate_overrides(options, arguments, "config", "further_configs")
    if not options.config:
        parser.error("--config: expected a name before any key=value")
    keys = [key for key, _ in options.vary]
    if SEED in [text.partition("=")[0] for text in options.overrides] + keys:
        parser.error(f"{SEED}: set by --seeds; leave it out")
    if len(set(keys)) < len(keys):
        parser.error("--vary: the same key twice; give all its values at once, KEY=A,B,C")
    if options.jobs and options.address:
        parser.error("--jobs is for this machine; a cluster runs as many at once as fit")
    return options


def name(text: str) -> str:
    """Return the name of a folder, for argparse."""
    if not text.strip(".") or UNSAFE.search(text):
        raise argparse.ArgumentTypeError(f"expected letters, digits and any of _ . + = -, not {text}")
    return text


def variation(text: str) -> tuple[str, list[str]]:
    """Return (key, values) of --vary, for argparse."""
    key, _, listed = text.partition("=")
    values = listed.split(",")
    if not key or not all(values) or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"expected key=value,value with each value once, not {text}")
    return key, values


def gpus(text: str) -> float:
    """Return a number of GPUs, for argparse: a whole number or a fraction below 1, as Ray allows."""
    if not re.fullmatch(r"\d*\.?\d+", text) or float(text) > 1 and float(text) % 1:
        raise argparse.ArgumentTypeError(f"expected a whole number or a fraction of 1, not {text}")
    return float(text)


def count(text: str) -> int:
    """Return a whole number from 0 on, for argparse."""
    return 0 if text == "0" else positive(text)


def plan(options: argparse.Namespace) -> list[Run]:
    """Return the runs of a sweep, in the order of their seeds.

    Raises ConfigError for a configuration that cannot work, or that differs from the one of a run in its folder.
    """
    keys = [key for key, _ in options.vary]
    labels = short_names(keys)
    combinations = list(itertools.product(*(values for _, values in options.vary)))
    variants = []  # runs without their seeds: (beginning of the folder's name, arguments, configuration)
    for config_name, values in itertools.product(options.config, combinations):
        names = [config_name, *options.further_configs]
        overrides = list(options.overrides)
        name_parts = [Path(config_name).stem]
        for key, label, value in zip(keys, labels, values, strict=True):
            overrides.append(f"{key}={value}")
            name_parts.append(f"{label}={value}")
        variants.append(("_".join(name_parts), ["--config", *names, *overrides], load_config(names, overrides)))
    runs: dict[str, Run] = {}
    for seed, (name_prefix, arguments, config) in itertools.product(range(options.seeds), variants):
        folder = str(ROOT / options.name / UNSAFE.sub("-", f"{name_prefix}_seed{seed}"))
        if folder in runs:
            raise ConfigError(f"two runs would have the folder {folder}; name each configuration once")
        config.operation.seed = seed
        settings = config.parameters.dreamer
        runs[folder] = Run(
            folder=run_folder_path(folder, config),
            arguments=(*arguments, f"{SEED}={seed}", "--folder", folder),
            iterations=settings.train_iterations,
            max_env_steps=settings.max_env_steps,
        )
    return list(runs.values())


def short_names(keys: Sequence[str]) -> list[str]:
    """Return the last part of each dotted key, or the whole key where last parts are equal."""
    last_parts = [key.split(".")[-1] for key in keys]
    return [key if last_parts.count(part) > 1 else part for key, part in zip(keys, last_parts, strict=True)]


def run_folder_path(folder: str, config: Config) -> Path:
    """Return the path of a run's folder. Raises ConfigError, with the folder's name, if no run can start there."""
    try:
        return named_folder(folder, config)
    except ConfigError as error:
        raise ConfigError(str(error) if folder in str(error) else f"{folder}: {error}") from None


def sweep(runs: Sequence[Run], options: argparse.Namespace) -> int:
    """Train the runs that are not complete, and return the exit status."""
    incomplete_runs = [run for run in runs if not run.is_complete()]
    tasks = start(incomplete_runs, options) if incomplete_runs else None
    display = Display(runs, incomplete_runs)
    with closing(display):
        try:
            while tasks and not tasks.wait(POLL_SECONDS):
                display.show(tasks)
        except (KeyboardInterrupt, OSError):
            display.print_line("stopping: each run saves its last iteration; Ctrl-C again: stop at once")
            with suppress(KeyboardInterrupt):
                if tasks:
                    tasks.stop()
            raise
        if tasks:
            display.show(tasks)
    print(f"look at it  {PYTHON} -m dreamer plot {shlex.quote(display.folder)} --table", file=sys.stderr)
    return int("failed" in display.states.values())


def start(runs: Sequence[Run], options: argparse.Namespace) -> Tasks:
    """Return the runs as tasks that wait to be started. Raises ConfigError if there is no room for any."""
    tasks: Tasks
    if options.address:
        tasks = start_on_ray(runs, options)
    else:
        environments = run_environments(options.jobs, options.cpus_per_run, options.gpus_per_run)
        tasks = Processes(runs, environments, options.retries)
    runs[0].folder.parent.mkdir(parents=True, exist_ok=True)
    return tasks


def start_on_ray(runs: Sequence[Run], options: argparse.Namespace) -> Tasks:
    """Return the runs as tasks of a Ray cluster. Raise ConfigError if Ray is not installed or there is no cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # by default Ray searches for a quarter of an hour
    try:
        from dreamer.tools.sweep_ray import RayTasks, connect
    except ModuleNotFoundError:
        raise ConfigError(f"Ray is not installed: {pip_install('ray')}; or no --address") from None
    resources = connect(options.address, options.cpus_per_run, options.gpus_per_run)
    signals.ready()  # Ray has replaced the handlers of signals
    return RayTasks(runs, resources, options.retries)
