"""Group runs into learning curves: runs that differ only in the seed form one curve."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dreamer.config.load import flatten, load_config
from dreamer.config.yaml_files import read_mapping
from dreamer.errors import ConfigError
from dreamer.tools.curves import read_curves
from dreamer.tools.published import conditions_of
from dreamer.tools.statistics import interquartile_mean, interval
from dreamer.training.run_folder import CONFIGURATION

IGNORED_KEYS = {  # keys in which the runs of one curve may differ
    "environment.seed",
    "environment.success_key",
    "operation.background_evaluation",
    "operation.evaluation_device",
    "operation.checkpoint_interval",
    "operation.keep_every",
    "operation.device",
    "operation.fast_paths",
    "operation.log_dir",
    "operation.loggers",
    "operation.seed",
    "operation.video_interval",
    "parameters.dreamer.max_env_steps",
    "parameters.dreamer.train_iterations",
}


def find_runs(names: Iterable[str]) -> list[Path]:
    """Return the folders of runs among `names` and directly inside them, each once. Print names without a run.

    Raises ConfigError if there is no run.
    """
    folders: dict[Path, Path] = {}
    messages = []
    for name in map(Path, names):
        config_paths = [*name.glob(CONFIGURATION), *sorted(name.glob(f"[!.]*/{CONFIGURATION}"))]
        folders |= {path.resolve(): path.parent for path in config_paths}
        if not config_paths:
            messages.append(f"{name} is not the folder of a run and holds none")
    if not folders:
        raise ConfigError(messages[0])
    for line in messages:
        print(f"left out: {line}", file=sys.stderr)
    return list(folders.values())


def read_runs(folders: Sequence[Path], metric: str, until: float = math.inf) -> pd.DataFrame:
    """Return the values of a metric by env steps, a column for each folder that has it. Print folders that do not.

    Raises ConfigError if no run has it.
    """
    columns: dict[Path, pd.Series] = {}
    tags: set[str] = set()
    for folder in folders:
        curves = read_curves(folder)
        tags |= set(curves)
        if metric in curves:
            columns[folder] = pd.Series(curves[metric])
    values = pd.DataFrame(columns, columns=folders).sort_index()
    if values.isna().all(axis=None):
        raise ConfigError(f"no run has {metric}; there is: {', '.join(sorted(tags)) or 'nothing yet'}")
    values_until = values.loc[:until].dropna(axis=1, how="all")
    limit = f" up to {until:,.0f} env steps" if until < math.inf else ""
    if values_until.empty:
        raise ConfigError(f"no run has {metric}{limit}; the first has it after {values.index[0]:,}")
    for folder in values.columns.difference(values_until.columns):
        print(f"left out: {folder} has no {metric}{limit}", file=sys.stderr)
    return values_until


def read_curve_settings(folder: Path) -> dict[str, str]:
    """Return a run's configuration and its `task`, {key: text}. Read it as plain YAML if load_config refuses it."""
    try:
        settings = flatten(load_config(folder / CONFIGURATION))
    except ConfigError as config_error:
        try:
            settings = flatten(load_config("dreamer")) | flatten(read_mapping(folder / CONFIGURATION))
        except ConfigError:  # no mapping, or no YAML at all
            raise config_error from None
    return curve_settings(settings)


def curve_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return a configuration as {key: text}, with `task` and `algorithm` in the form of curves' names."""
    settings = dict(settings)
    domain, task = settings["environment.domain_name"], settings["environment.task_name"]
    settings["task"] = f"{domain}_{task}" if settings["environment.benchmark"] == "dmc" else task
    if settings["algorithm"] == "dreamer":
        settings["algorithm"] = f"dreamer-v{settings['version']}"
    elif settings["version"] != 1:
        settings["algorithm"] += f" on dreamer-v{settings['version']}"
    is_initialized = settings["operation.initialize_from"] is not None  # which run they come from does not matter
    settings["operation.initialize_from"] = is_initialized
    return {key: str(value) for key, value in settings.items()}


def group_runs(values: pd.DataFrame, by_name: bool = False) -> pd.DataFrame:
    """Return curves, one for each group of runs that differ only in the seed. by_name: also split by log_dir."""
    settings = pd.DataFrame([read_curve_settings(folder) for folder in values], index=values.columns).fillna("absent")
    curves = []
    for (task, algorithm), runs in settings.groupby(["task", "algorithm"]):
        no_label = pd.Series("", runs.index)
        difference = no_label  # text on the keys in which a run differs from others
        for key in sorted(set(runs) - IGNORED_KEYS):
            if runs[key].nunique() > 1:
                difference = difference + f" {key.split('.')[-1]}=" + runs[key]
        groups = runs.groupby([runs["operation.log_dir"], difference] if by_name else difference)
        names = groups["operation.log_dir"].transform(lambda names: " " + "/".join(sorted(set(names))))
        labels = (no_label, names, difference, names + difference)  # in order of preference
        label = next(label for label in labels if label.nunique() == groups.ngroups)  # distinguishes all groups
        for method, group in runs.groupby(algorithm + label, sort=False):
            seeds = group["operation.seed"].nunique()
            if seeds < len(group):
                print(f"warning: {task}, {method}: {len(group)} runs of {seeds} seeds", file=sys.stderr)
            curve = average_runs(values[group.index], method).assign(task=task, method=method, seeds=seeds)
            curves.append(curve.assign(**conditions_of(group.iloc[0])))
    return pd.concat(curves)


def average_runs(values: pd.DataFrame, method: str) -> pd.DataFrame:
    """Return the curve of runs over the env steps at which all have values, interpolated linearly.

    It has their mean, the sample's standard deviation, the interquartile mean `iqm` with its interval from `low` to
    `high`, and in `run_values` the values of the runs. With one run, deviation and interval are NaN.
    """
    values = interpolate_shared_steps(values)
    if values.isna().all(axis=None):
        raise ConfigError(f"{method}: no env steps that all of its {values.shape[1]} runs have reached")
    run_values = values.to_numpy()
    low, high = interval([run_values])
    points = {
        "env_steps": values.index,
        "mean": values.mean(axis=1),
        "std": values.std(axis=1),
        "iqm": interquartile_mean(run_values),
        "low": low,
        "high": high,
        "each": run_values.tolist(),
    }
    return pd.DataFrame(points, index=values.index)


def interpolate_shared_steps(values: pd.DataFrame) -> pd.DataFrame:
    """Return the values of runs at the env steps that all of them have reached, interpolated linearly."""
    return values.dropna(how="all").interpolate("index", limit_area="inside").dropna()
