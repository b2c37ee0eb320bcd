"""Loads a configuration: YAML files, one on top of the other, then overrides. `schema.py` knows the keys.

Every complaint is a ConfigError of one line that says what is wrong and what to do.
"""

import difflib
import os
import sys
from pathlib import Path
from typing import Any

import attridict
import yaml

from dreamer.config.rules import conflict, unread
from dreamer.config.schema import CONFIGS, DEFAULTS, check, config_names
from dreamer.config.yaml_files import ECHOED, MAPPINGS, cut, echo, flatten, parse, read_mapping, unflatten
from dreamer.errors import ConfigError

Config = Any  # an attridict: sections and keys are attributes

CONFIGURATION = "config.yml"  # in the folder of a run: every key

MAY_CHANGE = {  # in a run that goes on
    "operation.device",
    "operation.fast_paths",
    "operation.precision",
    "operation.video_interval",
    "operation.checkpoint_interval",
    "operation.background_evaluation",
    "operation.evaluation_device",
    "parameters.dreamer.train_iterations",
    "parameters.dreamer.max_env_steps",
    "parameters.dreamer.collect_interval",
    "parameters.dreamer.num_evaluate",
    "parameters.dreamer.evaluate_interval",
    "parameters.plan2explore.explore_env_steps",
}

ALIASES = {  # of the algorithm, as older runs name it; the first, as configurations of this family do
    f"dreamer-v{version}": {"algorithm": "dreamer", "version": version} for version in (1, 2, 3)
}


def load_config(names, overrides=()):
    """The configuration called so, as a checked attridict in which every key has a value.

    names: a file of configs/, with or without .yml, or a path; or a list of such, each on top of the one before, which
    then name the run. Keys that neither they nor their `base`s set keep the defaults of configs/dreamer.yml.
    overrides: "dotted.key=value" strings, the value in YAML. Raises ConfigError.
    """
    paths = [find_config(name) for name in ([names] if isinstance(names, (str, Path)) else names)]
    defaults = flatten(read_mapping(DEFAULTS))
    values, own = dict(defaults), set()  # own: what the user has written
    each = [_layers(path) for path in paths]
    layers = [layer for several in each for layer in several]
    _check_order(paths, each)
    if len(paths) > 1:
        layers.append(("--config", {"operation.log_dir": "-".join(path.stem for path in paths)}))
    for source, settings in [*layers, *map(_parse_override, overrides)]:
        if Path(source).name == CONFIGURATION or settings.get("algorithm") == "dreamer-v1":
            settings = renamed(settings)
        checked = check(settings, source)
        for key in MAPPINGS & checked.keys():  # a layer adds to the mapping of those below
            checked[key] = values[key] | checked[key]
        values |= checked
        if CONFIGS not in Path(source).parents and Path(source).name != CONFIGURATION:
            own |= checked.keys()
    _check_together(values, [key for key in values if key in own and values[key] != defaults[key]])
    return attridict(unflatten(values))


def load_run_config(path, overrides):
    """The configuration of a run that goes on. Raises ConfigError for overrides of what its past depends on."""
    config = load_config(path, overrides)
    check_changes(path, config)
    return config


def check_changes(path, config):
    """Raise ConfigError unless a run with the configuration in the file `path` can go on with this one."""
    before = flatten(load_config(path))
    for key, value in flatten(config).items():
        if value != before[key] and key not in MAY_CHANGE:
            found = f"{cut(str(before[key]))} cannot become {cut(str(value))}"
            raise ConfigError(f"{key}: {found} in a run that goes on; start a new one")


def find_config(name):
    """The path of a configuration: a path as it is, else a file of configs/."""
    for candidate in (Path(name), CONFIGS / name, CONFIGS / f"{name}.yml"):
        if os.path.isfile(candidate):  # False, too, for what cannot be a path
            return candidate.resolve()
    known = config_names()
    nearest = difflib.get_close_matches(Path(name).stem[:ECHOED], known, n=3, cutoff=0.3) or known
    raise ConfigError(f"no configuration {echo(str(name))}; the nearest names: {', '.join(nearest)}")


def check_embedding_size(given, derived):
    """Raise ConfigError unless the size that a configuration gives, if any, is the encoder's."""
    if given not in (None, derived):
        key = "parameters.dreamer.embedded_state_size"
        raise ConfigError(f"{key}: {given}, but the encoder makes {derived}; leave the key out")


def dump_config(config):
    """The configuration as YAML text, which load_config reads again."""
    return yaml.safe_dump(config, sort_keys=False)


def _layers(path, above=()):
    """(path, flat settings) of the files that `path` builds on, the lowest first."""
    if path in above:
        raise ConfigError(f"{path}: its base leads back to itself")
    tree, layers = read_mapping(path), []
    if base := tree.pop("base", None):
        beside = path.parent / str(base)
        layers = _layers(find_config(beside if os.path.isfile(beside) else str(base)), (*above, path))
    return [*layers, (path, flatten(tree))] if path != DEFAULTS else layers


def _check_order(paths, each):
    """Raise ConfigError for a configuration of which nothing is left, since those after it set all that it sets."""
    for number, (path, layers) in enumerate(zip(paths, each, strict=True), 1):
        after = {key for several in each[number:] for _, settings in several for key in settings}
        own = layers[-1][1].keys() - {"operation.log_dir"} if layers else set()
        if own and own <= after:
            raise ConfigError(f"--config: nothing is left of {path.stem}: what comes after it sets the same keys")


def _parse_override(override):
    key, equals, value = override.partition("=")
    if not key or not equals:
        raise ConfigError(f"{echo(override)}: an override is written key=value, such as operation.seed=1")
    parsed = parse(echo(override), lambda: value, "; put text in quotes")
    for mapping in MAPPINGS:
        name = key.removeprefix(f"{mapping}.")
        if name != key:
            return "command line", {mapping: {name: parsed}}
    return "command line", {key: parsed}


def renamed(settings):
    """Settings in today's words."""
    return settings | ALIASES.get(str(settings.get("algorithm")), {})


def _check_together(values, own):
    """Raise ConfigError for what cannot work together. own: what the user has written; a line warns of any that
    nothing reads."""
    if reason := conflict(values):
        raise ConfigError(reason)
    for key, reason in unread(values, own).items():
        print(f"warning: {key} is ignored: {reason}", file=sys.stderr)
