"""Learning curves: what runs have logged, averaged over seeds, and what others have published."""

import csv
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dreamer.config import ConfigError, flatten, load_config
from dreamer.run_folder import CONFIGURATION

SAME_CURVE = {  # keys that split no curve
    "operation.background_evaluation",
    "operation.checkpoint_interval",
    "operation.device",
    "operation.fast_paths",
    "operation.log_dir",
    "operation.seed",
    "operation.video_interval",
    "environment.seed",
    "parameters.dreamer.train_iterations",
}
COLUMNS = ["method", "task", "env_steps", "mean", "std", "seeds"]


class Run(NamedTuple):
    """One metric of one run. settings: its configuration, flat. env_steps: rising, with the values there."""

    settings: dict
    env_steps: np.ndarray
    values: np.ndarray


class Curve(NamedTuple):
    """Mean and standard deviation over seeds at env steps. last: each seed's value at the last of them, if known."""

    label: str
    env_steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    seeds: int
    last: tuple = ()


# Reading


def find_runs(names):
    """The folders of runs among `names` and directly inside them, each once."""
    folders = {}
    for name in map(Path, names):
        inside = sorted(path.parent for path in name.glob(f"*/{CONFIGURATION}"))
        found = [name] if (name / CONFIGURATION).is_file() else inside
        if not found:
            raise ConfigError(f"{name} is not the folder of a run and holds none")
        folders |= {folder.resolve(): folder for folder in found}
    return list(folders.values())


def read_runs(folders, metric, until=math.inf):
    """A Run for each folder that has the metric; those without are named on stderr. until: read no further."""
    runs, without, tags = [], [], set()
    for folder in folders:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1, "tensors": 1}).Reload()
        known = events.Tags()["scalars"]
        tags.update(known)
        scalars = events.Scalars(metric) if metric in known else []
        if points := sorted((event.step, event.value) for event in scalars if event.step <= until):
            runs.append(Run(flatten(load_config(folder / CONFIGURATION)), *np.array(points).T))
        else:
            without.append(folder)
    if not runs:
        raise ConfigError(f"no run has {metric}; there is: {', '.join(sorted(tags)) or 'nothing yet'}")
    for folder in without:
        print(f"left out: {folder} has no {metric}", file=sys.stderr)
    return runs


def read_reference(path, methods=None):
    """Published curves of these methods or of all, {task: [Curve]}. Raises ConfigError for another kind of file."""
    points = defaultdict(list)
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != COLUMNS:
            raise ConfigError(f"{path}: its first line should be {','.join(COLUMNS)}")
        for row in reader:
            try:
                points[row["task"], row["method"]].append([float(row[column]) for column in COLUMNS[2:]])
            except (TypeError, ValueError):
                raise ConfigError(f"{path}: line {reader.line_num} is not {','.join(COLUMNS)}") from None
    known = {method for _, method in points}
    if unknown := set(methods or ()) - known:
        raise ConfigError(f"{path}: no method {', '.join(unknown)}; there is: {', '.join(sorted(known))}")
    curves = defaultdict(list)
    for (task, method), rows in points.items():
        if not methods or method in methods:
            env_steps, mean, std, seeds = np.array(sorted(rows)).T
            curves[task].append(Curve(method, env_steps, mean, std, int(seeds.max())))
    return curves


# From runs to curves


def group_runs(runs, by_name=False):
    """Runs that differ in the seed alone (by_name: and have the same log_dir) as one curve each: {task: [Curve]}."""
    kinds = defaultdict(lambda: defaultdict(list))
    for run in runs:
        name = run.settings["operation.log_dir"] if by_name else None
        kinds[task_of(run), run.settings["algorithm"]][name, shaping(run)].append(run)
    curves = defaultdict(list)
    for (task, algorithm), groups in kinds.items():
        for group, difference in zip(groups.values(), differences(groups.values()), strict=True):
            curve = average(f"{algorithm} {difference}".strip(), group)
            if curve.seeds < len(group):
                print(f"warning: {task}, {curve.label}: {len(group)} runs of {curve.seeds} seeds", file=sys.stderr)
            curves[task].append(curve)
    return curves


def task_of(run):
    """Its name as in the reference, such as walker_walk; on gym the registered id."""
    domain, task = run.settings["environment.domain_name"], run.settings["environment.task_name"]
    return f"{domain}_{task}".replace("-", "_") if run.settings["environment.benchmark"] == "dmc" else task


def shaping(run):
    """The settings that shape its curve, a set of pairs. Which run it was initialized from does not, but whether."""
    settings = run.settings | {"operation.initialize_from": run.settings["operation.initialize_from"] is not None}
    return frozenset((key, value) for key, value in settings.items() if key not in SAME_CURVE)


def differences(groups):
    """What tells groups of runs apart: nothing if there is one, else their names, or the settings that differ."""
    names = ["/".join(sorted({run.settings["operation.log_dir"] for run in group})) for group in groups]
    settings = [shaping(group[0]) for group in groups]
    common = frozenset.intersection(*settings)
    own = [" ".join(f"{key.split('.')[-1]}={value}" for key, value in sorted(each - common)) for each in settings]
    both = [f"{name} {setting}" for name, setting in zip(names, own, strict=True)]
    return next(texts for texts in ([""] * len(names), names, own, both) if len(set(texts)) == len(texts))


def average(label, runs):
    """The Curve of some runs, where all of them have values: over the env steps of any, linear in between.

    std: of the population, as in published curves.
    """
    first, last = max(run.env_steps[0] for run in runs), min(run.env_steps[-1] for run in runs)
    env_steps = np.unique(np.concatenate([run.env_steps for run in runs]))
    env_steps = env_steps[(env_steps >= first) & (env_steps <= last)]
    if not len(env_steps):
        raise ConfigError(f"{label}: no env steps that all of its {len(runs)} runs have reached")
    values = np.stack([np.interp(env_steps, run.env_steps, run.values) for run in runs])
    seeds = len({run.settings["operation.seed"] for run in runs})
    return Curve(label, env_steps, values.mean(0), values.std(0), seeds, tuple(values[:, -1]))
