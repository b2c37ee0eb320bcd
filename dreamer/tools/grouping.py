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
from dreamer.tools.published import made_from
from dreamer.tools.statistics import interquartile_mean, interval
from dreamer.training.run_folder import CONFIGURATION

SAME_CURVE = {  # keys in which the runs of one curve may differ
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
    without = []
    for name in map(Path, names):
        found = [*name.glob(CONFIGURATION), *sorted(name.glob(f"[!.]*/{CONFIGURATION}"))]
        folders |= {path.resolve(): path.parent for path in found}
        without += [] if found else [f"{name} is not the folder of a run and holds none"]
    if not folders:
        raise ConfigError(without[0])
    for line in without:
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
    found = values.loc[:until].dropna(axis=1, how="all")
    within = f" up to {until:,.0f} env steps" if until < math.inf else ""
    if found.empty:
        raise ConfigError(f"no run has {metric}{within}; the first has it after {values.index[0]:,}")
    for folder in values.columns.difference(found.columns):
        print(f"left out: {folder} has no {metric}{within}", file=sys.stderr)
    return found


def read_curve_settings(folder: Path) -> dict[str, str]:
    """Return a run's configuration and its `task`, {key: text}. Read it as plain YAML if load_config refuses it."""
    try:
        settings = flatten(load_config(folder / CONFIGURATION))
    except ConfigError as refusal:
        try:
            settings = flatten(load_config("dreamer")) | flatten(read_mapping(folder / CONFIGURATION))
        except ConfigError:  # no mapping, or no YAML at all
            raise refusal from None
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
    has_first_weights = settings["operation.initialize_from"] is not None  # which run they come from does not matter
    settings["operation.initialize_from"] = has_first_weights
    return {key: str(value) for key, value in settings.items()}


def group_runs(values: pd.DataFrame, by_name: bool = False) -> pd.DataFrame:
    """Return curves, one for each group of runs that differ only in the seed. by_name: also split by log_dir."""
    settings = pd.DataFrame([read_curve_settings(folder) for folder in values], index=values.columns).fillna("absent")
    curves = []
    for (task, algorithm), runs in settings.groupby(["task", "algorithm"]):
        nothing = difference = pd.Series("", runs.index)
        for key in sorted(set(runs) - SAME_CURVE):
            if runs[key].nunique() > 1:
                difference = difference + f" {key.split('.')[-1]}=" + runs[key]
        groups = runs.groupby([runs["operation.log_dir"], difference] if by_name else difference)
        names = groups["operation.log_dir"].transform(lambda names: " " + "/".join(sorted(set(names))))
        labels = (nothing, names, difference, names + difference)  # in order of preference
        label = next(texts for texts in labels if texts.nunique() == groups.ngroups)
        for method, group in runs.groupby(algorithm + label, sort=False):
            seeds = group["operation.seed"].nunique()
            if seeds < len(group):
                print(f"warning: {task}, {method}: {len(group)} runs of {seeds} seeds", file=sys.stderr)
            curve = average(values[group.index], method).assign(task=task, method=method, seeds=seeds)
            curves.append(curve.assign(**made_from(group.iloc[0])))
    return pd.concat(curves)


def average(values: pd.DataFrame, method: str) -> pd.DataFrame:
    """Return the curve of runs over the env steps at which all have values, interpolated linearly.

    It has their mean, the sample's standard deviation, the interquartile mean `iqm` with its interval from `low` to
    `high`, and in `each` the values of the runs. With one run, deviation and interval are NaN.
    """
    values = where_all_have_values(values)
    if values.isna().all(axis=None):
        raise ConfigError(f"{method}: no env steps that all of its {values.shape[1]} runs have reached")
    each = values.to_numpy()
    low, high = interval([each])
    points = {
        "env_steps": values.index,
        "mean": values.mean(axis=1),
        "std": values.std(axis=1),
        "iqm": interquartile_mean(each),
        "low": low,
        "high": high,
        "each": each.tolist(),
    }
    return pd.DataFrame(points, index=values.index)


def where_all_have_values(values: pd.DataFrame) -> pd.DataFrame:
    """Return the values of runs at the env steps that all of them have reached, interpolated linearly."""
    return values.dropna(how="all").interpolate("index", limit_area="inside").dropna()
