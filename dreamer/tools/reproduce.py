"""Train a task with several seeds and compare the returns with a published curve.

  dreamer reproduce dmc-walker-walk --seeds 5 --plan                                  time and disk it takes here
  dreamer reproduce dmc-walker-walk --seeds 5 --jobs 2                                Dreamer, as published
  dreamer reproduce dmc-walker-walk dreamer-v3 size12m --reference mine.csv --method dreamer-v3

The runs are made as by `dreamer sweep`: in runs/<name>, resumed by the same command. The exit status is 0 if their
returns are within the spread of the published ones or above it, 1 if they are below or a run has failed, 3 if they have
not reached the env steps of a published point.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dreamer.config.load import CONFIGS, flatten, load_config
from dreamer.envs.calls import run_calls_within
from dreamer.errors import ConfigError, EnvError
from dreamer.main import preserved_process_settings
from dreamer.tools import sweep
from dreamer.tools.argument_parser import Parser, parse_words, positive
from dreamer.tools.check.play import play_randomly
from dreamer.tools.check.prediction import predict
from dreamer.tools.check.report import format_bytes, format_hours
from dreamer.tools.grouping import curve_settings, interpolate_shared_steps, read_runs
from dreamer.tools.published import conditions_of, describe_conditions, is_comparable, read_reference
from dreamer.tools.scores import with_interval
from dreamer.tools.statistics import interquartile_mean, interval
from dreamer.training import signals, torch_settings

PACKAGED = CONFIGS / "reference.csv"
REFERENCE = PACKAGED if PACKAGED.is_file() else CONFIGS.parent / "docs" / "reference.csv"
METRIC = "eval/return_ema20"
SECONDS = 4.0  # of random play, for the length of an episode
WITHIN, BELOW, ABOVE = "within", "below", "above"
UNFINISHED = 3  # exit status


class Comparison(NamedTuple):
    """Holds the returns of runs and the published ones at the same env steps."""

    env_steps: int
    returns: list[float]  # of each run
    mean: float  # the interquartile mean of the returns
    low: float  # end of the mean's interval; both ends are the mean if there is one run
    high: float
    published_mean: float
    published_std: float  # over the seeds
    published_seeds: int

    @property
    def verdict(self) -> str:
        """Whether the interval of the runs meets the published mean ± std, or lies below or above it."""
        if self.high < self.published_mean - self.published_std:
            return BELOW
        return ABOVE if self.low > self.published_mean + self.published_std else WITHIN


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, train, compare, and return the exit status; 2 after an error, printed as one line."""
    options = parse_arguments(arguments)
    try:
        return reproduce(options)
    except (ConfigError, EnvError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        return signals.status_of(stop)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line. arguments: None for `sys.argv`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("dreamer reproduce", description=__doc__, formatter_class=raw)
    parser.add_argument("words", nargs="+", metavar="NAME|key=value", help="configurations; keys of the configuration")
    parser.add_argument("--seeds", type=positive, default=5, metavar="N", help="seeds 0 to N-1 (%(default)s)")
    parser.add_argument("--name", type=sweep.name, help="the folder in runs/ (reproduce_ and the configurations)")
    parser.add_argument("--jobs", type=positive, metavar="N", help="runs at once on this machine (all that fit)")
    parser.add_argument("--reference", metavar="CSV", default=str(REFERENCE), help="published curves (those shipped)")
    parser.add_argument("--method", help="of the reference (that of the configuration, such as dreamer-v1)")
    parser.add_argument("--plan", action="store_true", help="print the time and disk it takes, and train nothing")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    return parse_words(parser, arguments, expected="a configuration, such as dmc-walker-walk")


def reproduce(options: argparse.Namespace) -> int:
    """Train the runs, print the comparison and return the exit status. Raises ConfigError, EnvError or OSError."""
    published = published_curve(options)
    sweep_options = make_sweep_options(options)
    runs = sweep.plan(sweep_options)
    waiting = [run for run in runs if not run.is_complete()]
    if waiting:
        print("\n".join(plan_lines(options, len(waiting))), file=sys.stderr)
    if options.plan:
        return 0
    status = sweep.sweep(runs, sweep_options)
    if status:
        return status
    comparison = compare([run.folder for run in runs], published)
    if comparison is None:
        start = published["env_steps"].iloc[0]
        print(f"no verdict: not every run has reached {start:,.0f} env steps, the first published", file=sys.stderr)
        return UNFINISHED
    if options.json:
        print(json.dumps(comparison._asdict() | {"verdict": comparison.verdict}))
    else:
        print(describe_comparison(comparison))
    return int(comparison.verdict == BELOW)


def published_curve(options: argparse.Namespace) -> pd.DataFrame:
    """Return the points of the published curve for a configuration. Raises ConfigError if there is none, or if its
    observations or action repeat differ and --method does not name it."""
    settings = curve_settings(flatten(load_config(options.words, options.overrides)))
    method, task = options.method or settings["algorithm"], settings["task"]
    reference = read_reference(options.reference)
    points = reference[(reference["method"] == method) & (reference["task"] == task)]
    if points.empty:
        known_methods = ", ".join(sorted(reference["method"][reference["task"] == task].unique()))
        raise ConfigError(
            f"{options.reference} has no points of {method} on {task}; of {task} it has: {known_methods or 'none'}"
        )
    run_conditions = pd.Series(conditions_of(settings))
    are_comparable = all(is_comparable(point, run_conditions) for _, point in points.iterrows())
    if not are_comparable and not options.method:
        conditions = describe_conditions(points.iloc[0])
        reason = f"{method} of {task} was published for {conditions}"
        raise ConfigError(f"{reason}; --method {method} compares it nevertheless")
    return points


def make_sweep_options(options: argparse.Namespace) -> argparse.Namespace:
    """Return the options of the sweep that trains the runs."""
    base_config, *further_configs = options.words
    name = options.name
    if not name:
        stems = [Path(word).stem for word in options.words]
        name = sweep.UNSAFE.sub("-", "_".join(["reproduce", *stems]))
    arguments = ["--config", base_config, "--seeds", str(options.seeds), "--name", name, *options.overrides]
    if further_configs:
        arguments += ["--with", *further_configs]
    if options.jobs:
        arguments += ["--jobs", str(options.jobs)]
    return sweep.parse_arguments(arguments)


def plan_lines(options: argparse.Namespace, runs: int) -> list[str]:
    """Measure an update, and return lines on the time and disk that `runs` runs take here. Raises EnvError."""
    config = load_config(options.words, options.overrides)
    run_calls_within(torch_settings.environment_settings)
    with preserved_process_settings():
        prediction = predict(config, play_randomly(config.environment, config.operation.seed, seconds=SECONDS))
    disk = prediction.replay_bytes + prediction.checkpoint_bytes
    one_run = f"{format_hours(prediction.hours)}, {prediction.env_steps:,.0f} env steps, {format_bytes(disk)} on disk"
    all_runs = f"{format_hours(runs * prediction.hours)} one after the other, {format_bytes(runs * disk)} on disk"
    compiled = " before it is compiled" if prediction.is_compiled else ""
    update = f"{1000 * prediction.update_seconds:,.0f} ms an update{compiled}, {prediction.device}"
    return [f"a run    {one_run} ({update})", f"{f'{runs} runs':8} {all_runs}"]


def compare(folders: Sequence[Path], published: pd.DataFrame) -> Comparison | None:
    """Return the comparison at the last published point that all runs have reached; None if they have reached none."""
    values = interpolate_shared_steps(read_runs(folders, METRIC))
    reached = published[published["env_steps"] <= values.index.max()]
    if len(values.columns) < len(folders) or values.empty or reached.empty:
        return None
    point = reached.iloc[-1]
    env_steps = int(point["env_steps"])
    returns = np.array([np.interp(env_steps, values.index, values[folder]) for folder in folders])
    mean = float(interquartile_mean(returns))
    if len(returns) < 2:
        low, high = mean, mean
    else:
        low, high = map(float, interval([returns]))
    return Comparison(
        env_steps=env_steps,
        returns=returns.tolist(),
        mean=mean,
        low=low,
        high=high,
        published_mean=float(point["mean"]),
        published_std=float(point["std"]),
        published_seeds=int(point["seeds"]),
    )


def describe_comparison(comparison: Comparison) -> str:
    """Return a comparison as text."""
    each_return = ", ".join(f"{value:.1f}" for value in comparison.returns)
    mean = with_interval(comparison.mean, comparison.low, comparison.high)
    published = f"{comparison.published_mean:.1f} ± {comparison.published_std:.1f}"
    seeds = f"{comparison.published_seeds} seed{'s' if comparison.published_seeds > 1 else ''}"
    return (
        f"at {comparison.env_steps:,} env steps, {METRIC}\n"
        f"here       {mean}, {len(comparison.returns)} seeds: {each_return}\n"
        f"published  {published}, {seeds}\n"
        f"verdict    {comparison.verdict} the published spread"
    )
