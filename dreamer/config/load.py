"""Loads a configuration: YAML files, one on top of the other, then overrides. `schema.py` knows the keys.

Every complaint is a ConfigError of one line that says what is wrong and what to do.
"""

import difflib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attridict
import yaml

from dreamer.config.rules import conflict, unread
from dreamer.config.schema import CONFIGS, DEFAULTS, check, config_names, warn_of_gone
from dreamer.config.yaml_files import ECHOED, MAPPINGS, cut, echo, flatten, parse, read_mapping, unflatten
from dreamer.errors import ConfigError

Config = Any  # an attridict: sections and keys are attributes
Settings = dict[str, Any]  # flat: a dotted key and its value
Layer = tuple[Path | str, Settings]  # a file, or another source that a complaint names, and what it sets

CONFIGURATION = "config.yml"  # in the folder of a run: every key

MAY_CHANGE = {  # in a resumed run
    "operation.device",
    "operation.fast_paths",
    "operation.precision",
    "operation.threads",
    "operation.video_interval",
    "operation.checkpoint_interval",
    "operation.keep_every",
    "operation.background_evaluation",
    "operation.evaluation_device",
    "parameters.dreamer.train_iterations",
    "parameters.dreamer.max_env_steps",
    "parameters.dreamer.collect_interval",
    "parameters.dreamer.num_evaluate",
    "parameters.dreamer.evaluate_interval",
    "parameters.plan2explore.explore_env_steps",
}

yaml.SafeDumper.add_representer(attridict, yaml.SafeDumper.represent_dict)

ALIASES = {  # names of the algorithm in older runs, and "dreamer-v1" in older configurations
    f"dreamer-v{version}": {"algorithm": "dreamer", "version": version} for version in (1, 2, 3)
}


def load_config(names: str | Path | Iterable[str | Path], overrides: Sequence[str] = (), warns: bool = True) -> Config:
    """Return a checked configuration, in which every key has a value.

    names: a file of configs/, with or without .yml, or a path; or a list of such, each on top of the one before, which
    then name the run. Keys that neither they nor their `base`s set keep the defaults of configs/dreamer.yml.
    overrides: "dotted.key=value" strings, the value in YAML. warns: whether a line on stderr tells of each setting that
    is ignored. Raises ConfigError.
    """
    paths = [find_config(name) for name in ([names] if isinstance(names, (str, Path)) else names)]
    layers = _layers_of_files(paths) + [_parse_override(override) for override in overrides]
    defaults = flatten(read_mapping(DEFAULTS))
    values = dict(defaults)
    written: set[str] = set()
    for source, settings in layers:
        if Path(source).name == CONFIGURATION or settings.get("algorithm") == "dreamer-v1":
            settings = renamed(settings)
        checked = check(settings, source)
        if warns:
            warn_of_gone(settings, source)
        for key in MAPPINGS & checked.keys():  # a layer adds to the mapping of the layers below
            checked[key] = values[key] | checked[key]
        values |= checked
        if _is_written_by_hand(source):
            written |= checked.keys()
    reason = conflict(values)
    if reason:
        raise ConfigError(reason)
    if warns:
        _warn_of_unread(values, [key for key in values if key in written and values[key] != defaults[key]])
    return attridict(unflatten(values))


def load_run_config(path: Path, overrides: Sequence[str]) -> Config:
    """Return the configuration of a run to resume. Raises ConfigError for overrides of what its past depends on."""
    config = load_config(path, overrides)
    check_changes(path, config)
    return config


def check_changes(path: Path, config: Config) -> None:
    """Raise ConfigError unless a run with the configuration in the file `path` can be resumed with this one."""
    before = flatten(load_config(path, warns=False))
    for key, value in flatten(config).items():
        if value != before[key] and key not in MAY_CHANGE:
            found = f"{cut(str(before[key]))} cannot become {cut(str(value))}"
            raise ConfigError(f"{key}: {found} in a resumed run; start a new one")


def find_config(name: str | Path) -> Path:
    """Return the path of a configuration: a path as it is, else a file of configs/. Raises ConfigError."""
    for candidate in (Path(name), CONFIGS / name, CONFIGS / f"{name}.yml"):
        if os.path.isfile(candidate):  # False, too, for text that cannot be a path
            return candidate.resolve()
    known = config_names()
    nearest = difflib.get_close_matches(Path(name).stem[:ECHOED], known, n=3, cutoff=0.3) or known
    raise ConfigError(f"no configuration {echo(str(name))}; the nearest names: {', '.join(nearest)}")


def dump_config(config: Config) -> str:
    """Return the configuration as YAML text, which load_config reads again."""
    return yaml.safe_dump(config, sort_keys=False)


def renamed(settings: Settings) -> Settings:
    """Return settings with the names of older versions replaced by the current ones."""
    return settings | ALIASES.get(str(settings.get("algorithm")), {})


def _layers_of_files(paths: Sequence[Path]) -> list[Layer]:
    """Return the settings of these files and of their bases, the lowest first. Several files name the run."""
    layers_of_each = [_with_bases(path) for path in paths]
    _check_order(paths, layers_of_each)
    layers = [layer for layers_of_one in layers_of_each for layer in layers_of_one]
    if len(paths) > 1:
        layers.append(("names", {"operation.log_dir": "-".join(path.stem for path in paths)}))
    return layers


def _with_bases(path: Path, above: tuple[Path, ...] = ()) -> list[Layer]:
    """Return the settings of `path` and, before them, of the files that it builds on, the lowest first."""
    if path in above:
        raise ConfigError(f"{path}: its base leads back to itself")
    tree = read_mapping(path)
    base = tree.pop("base", None)
    layers = []
    if base:
        beside = path.parent / str(base)
        layers = _with_bases(find_config(beside if os.path.isfile(beside) else str(base)), (*above, path))
    if path != DEFAULTS:
        layers.append((path, flatten(tree)))
    return layers


def _check_order(paths: Sequence[Path], layers_of_each: Sequence[list[Layer]]) -> None:
    """Raise ConfigError for a file that has no effect, because later ones set all the keys that it sets."""
    for number, (path, layers) in enumerate(zip(paths, layers_of_each, strict=True), 1):
        later = {key for others in layers_of_each[number:] for _, settings in others for key in settings}
        own = layers[-1][1].keys() - {"operation.log_dir"} if layers else set()
        if own and own <= later:
            raise ConfigError(f"nothing is left of the configuration {path.stem}: later ones set the same keys")


def _parse_override(override: str) -> Layer:
    """Return the setting that "key=value" stands for. Raises ConfigError."""
    key, equals, value = override.partition("=")
    if not key or not equals:
        raise ConfigError(f"{echo(override)}: an override is written key=value, such as operation.seed=1")
    parsed = parse(echo(override), lambda: value, "; put text in quotes")
    for mapping in MAPPINGS:
        name = key.removeprefix(f"{mapping}.")
        if name != key:
            return "override", {mapping: {name: parsed}}
    return "override", {key: parsed}


def _is_written_by_hand(source: Path | str) -> bool:
    """Return whether the user has written a layer: neither configs/ nor the folder of a run holds it."""
    return CONFIGS not in Path(source).parents and Path(source).name != CONFIGURATION


def _warn_of_unread(values: Settings, written: Sequence[str]) -> None:
    """Print a line for each key of `written` that nothing reads."""
    for key, reason in unread(values, written).items():
        print(f"warning: {key} is ignored: {reason}", file=sys.stderr)
