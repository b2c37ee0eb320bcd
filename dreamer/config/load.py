"""Load a configuration: YAML files, each overriding the ones before, then overrides. `schema.py` checks the keys.

Every error is a ConfigError of one line that says what is wrong and what to do.
"""

import difflib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attridict
import yaml

from dreamer.config.names import CONFIGS, config_names, settings_of_task
from dreamer.config.rules import conflict, unread_keys
from dreamer.config.schema import DEFAULTS, check, warn_of_removed
from dreamer.config.yaml_files import ECHOED, MAPPINGS, cut, echo, flatten, parse, read_mapping, unflatten
from dreamer.errors import ConfigError

Config = Any  # an attridict: sections and keys are attributes
Settings = dict[str, Any]  # flat: a dotted key and its value
Layer = tuple[Path | str, Settings]  # the source of settings, as an error names it, and the settings
Source = str | Path | Mapping[str, Any]  # the name or path of a configuration, or the content of one

CONFIGURATION = "config.yml"  # in the folder of a run: every key
GIVEN = "configuration"  # the source of a mapping, as an error names it

MAY_CHANGE = {  # keys that may change in a resumed run
    "operation.device",
    "operation.fast_paths",
    "environment.success_key",
    "operation.loggers",
    "operation.compile",
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


def load_config(
    names: Source | Iterable[Source], overrides: Sequence[str] | Mapping[str, Any] = (), warns: bool = True
) -> Config:
    """Return a checked configuration, in which every key has a value.

    names: a file of configs/, with or without .yml, or a path, or a mapping; or a list of these, each overriding the
    ones before, and the run is named after all of them. Keys that neither they nor their `base`s set keep the defaults
    of configs/dreamer.yml. overrides: "dotted.key=value" strings, the value in YAML, or {dotted key: value}. warns:
    whether to print a line for each ignored setting. Raises ConfigError.
    """
    sources = [names] if isinstance(names, (str, Path, Mapping)) else list(names)
    layers = _layers_of_sources([each if isinstance(each, Mapping) else find_config(each) for each in sources])
    if isinstance(overrides, Mapping):
        layers += [_override(key, value) for key, value in overrides.items()]
    else:
        layers += [_parse_override(override) for override in overrides]
    defaults = flatten(read_mapping(DEFAULTS))
    values = dict(defaults)
    written: set[str] = set()
    for source, settings in layers:
        if Path(source).name == CONFIGURATION or settings.get("algorithm") == "dreamer-v1":
            settings = replace_old_names(settings)
        checked = check(settings, source)
        if warns:
            warn_of_removed(settings, source)
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


def load_run_config(path: Path, overrides: Sequence[str] | Mapping[str, Any]) -> Config:
    """Return the configuration of a run to resume. Raises ConfigError for an override of a key not in MAY_CHANGE."""
    config = load_config(path, overrides)
    check_changes(path, config)
    return config


def check_changes(path: Path, config: Config) -> None:
    """Raise ConfigError unless a run with the configuration in the file `path` can be resumed with `config`."""
    before = flatten(load_config(path, warns=False))
    for key, value in flatten(config).items():
        if value != before[key] and key not in MAY_CHANGE:
            found = f"{cut(str(before[key]))} cannot become {cut(str(value))}"
            raise ConfigError(f"{key}: {found} in a resumed run; start a new one")


def settings_of_environment(benchmark: str, task_name: str) -> Settings:
    """Return the settings for an environment given beside a configuration. The agent sees its own observations."""
    return {
        "environment.benchmark": benchmark,
        "environment.task_name": task_name,
        "environment.from_pixels": False,
        "environment.frame_skip": 1,
        "operation.log_dir": re.sub(r"[^\w.+=-]", "-", task_name.split(":")[-1]),
    }


def find_config(name: str | Path) -> Path:
    """Return the path of a configuration. name: a path, or the name of a file in configs/. Raises ConfigError.

    A task of a family has no file (`names.py`); the path returned is where its file would be.
    """
    for candidate in (Path(name), CONFIGS / name, CONFIGS / f"{name}.yml"):
        if os.path.isfile(candidate):  # False, too, for text that cannot be a path
            return candidate.resolve()
    own_name = Path(name).name.removesuffix(".yml")
    path = CONFIGS / f"{own_name}.yml"
    if str(name) in (own_name, path.name, str(path)) and settings_of_task(own_name) is not None:
        return path
    known = config_names()
    nearest = difflib.get_close_matches(Path(name).stem[:ECHOED], known, n=3, cutoff=0.3) or known
    raise ConfigError(f"no configuration {echo(str(name))}; the nearest names: {', '.join(nearest)}")


def dump_config(config: Config) -> str:
    """Return the configuration as YAML text, which load_config reads again."""
    return yaml.safe_dump(config, sort_keys=False)


def replace_old_names(settings: Settings) -> Settings:
    """Return settings with the names of older versions replaced by the current ones."""
    return settings | ALIASES.get(str(settings.get("algorithm")), {})


def _layers_of_sources(sources: Sequence[Path | Mapping[str, Any]]) -> list[Layer]:
    """Return the settings of these files or mappings and of their bases, the lowest first. The names of several files
    become the run's name."""
    layers_of_each = [_with_bases(source) for source in sources]
    _check_order(layers_of_each)
    layers = [layer for layers_of_one in layers_of_each for layer in layers_of_one]
    names = [source.stem for source in sources if isinstance(source, Path)]
    if len(names) > 1:
        layers.append(("names", {"operation.log_dir": "-".join(names)}))
    return layers


def _with_bases(source: Path | Mapping[str, Any], above: tuple[Path, ...] = ()) -> list[Layer]:
    """Return the settings of `source` and, before them, of the files in its `base`, the lowest first."""
    path = source if isinstance(source, Path) else Path(GIVEN)
    if path in above:
        raise ConfigError(f"{path}: its base leads back to itself; name another base")
    tree = dict(source) if isinstance(source, Mapping) else _read(source)
    bases = tree.pop("base", None) or []
    layers = []
    for base in bases if isinstance(bases, list) else [bases]:
        beside = path.parent / str(base)
        layers += _with_bases(find_config(beside if os.path.isfile(beside) else str(base)), (*above, path))
    if path != DEFAULTS:
        layers.append((path, flatten(tree)))
    return layers


def _read(path: Path) -> dict[str, Any]:
    """Return the mapping in a file, or a task's settings without one. Drop `tasks` of configs/, which is no setting."""
    is_ours = path.parent == CONFIGS
    if is_ours and not path.is_file():
        return settings_of_task(path.stem) or {}
    tree = read_mapping(path)
    if is_ours:
        tree.pop("tasks", None)
    return tree


def _check_order(layers_of_each: Sequence[list[Layer]]) -> None:
    """Raise ConfigError for a file that has no effect, because later ones set all the keys that it sets."""
    for number, layers in enumerate(layers_of_each, 1):
        if not layers:
            continue
        set_later: set[str] = set()
        for later_layers in layers_of_each[number:]:
            for _, settings in later_layers:
                set_later |= settings.keys()
        source, own_settings = layers[-1]  # after its bases
        own = own_settings.keys() - {"operation.log_dir"}
        if own and own <= set_later:
            name = Path(source).stem
            raise ConfigError(f"configuration {name} has no effect: later ones set the same keys; name it last")


def _parse_override(override: str) -> Layer:
    """Return the setting in a text "key=value". Raises ConfigError."""
    key, equals, value = override.partition("=")
    if not key or not equals:
        raise ConfigError(f"{echo(override)}: an override is written key=value, such as operation.seed=1")
    return _override(key, parse(echo(override), lambda: value, "; put text in quotes"))


def _override(key: str, value: object) -> Layer:
    """Return the setting of a dotted key."""
    for mapping in MAPPINGS:
        name = key.removeprefix(f"{mapping}.")
        if name != key:
            return "override", {mapping: {name: value}}
    return "override", {key: value}


def _is_written_by_hand(source: Path | str) -> bool:
    """Return whether the user has written a layer: neither configs/ nor the folder of a run holds it."""
    return CONFIGS not in Path(source).parents and Path(source).name != CONFIGURATION


def _warn_of_unread(values: Settings, written: Sequence[str]) -> None:
    """Print a warning for each key of `written` that nothing reads."""
    for key, reason in unread_keys(values, written).items():
        print(f"warning: {key} is ignored: {reason}", file=sys.stderr)
