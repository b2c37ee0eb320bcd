"""Loads a configuration: YAML files, one on top of the other, then overrides, checked key by key.

`configs/dreamer.yml` is the schema: what is not in it is not a key, and a value must be of the kind
of its default. Every complaint is a ConfigError of one line that says what is wrong and what to do.
"""

import difflib
import os
import re
import sys
from pathlib import Path

import attridict
import yaml

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DEFAULTS = CONFIGS / "dreamer.yml"
IGNORED = {"operation.save"}  # keys of older configurations which nothing reads

MAY_CHANGE = {  # in a run that goes on
    "operation.device",
    "operation.fast_paths",
    "operation.precision",
    "operation.video_interval",
    "operation.checkpoint_interval",
    "operation.background_evaluation",
    "parameters.dreamer.train_iterations",
    "parameters.dreamer.collect_interval",
    "parameters.dreamer.num_evaluate",
    "parameters.dreamer.evaluate_interval",
    "parameters.plan2explore.explore_env_steps",
}

INFINITY = float("inf")
ACTIVATIONS = ("ELU", "ReLU", "LeakyReLU", "GELU", "SiLU", "Tanh", "Softplus", "Mish")
OPTIONAL = {  # null by default
    "operation.initialize_from": str,
    "environment.seed": int,
    "parameters.dreamer.embedded_state_size": int,
    "parameters.plan2explore.explore_env_steps": int,
}
CHOICES = {
    "algorithm": ("dreamer-v1", "plan2explore"),
    "operation.precision": ("float32", "bfloat16"),
    "environment.benchmark": ("dmc", "gym"),
    "environment.render_quality": ("full", "fast"),
    "parameters.plan2explore.explorer": ("disagreement", "random"),
    "parameters.plan2explore.disagreement": ("variance", "std"),
}
PATTERNS = {
    "operation.device": (r"auto|cpu|cuda(:(0|[1-9]\d?))?", "auto, cpu, cuda or cuda:<number>"),
    "operation.initialize_from": (r"(?!latest$).+", "the folder of a run"),
    "operation.log_dir": (r"[\w.+=-]+", "a name of letters, digits and any of _ . + = -"),
}
RANGES = {  # lowest and highest value by the key's last part; any other number must be positive and finite
    "seed": (0, 2**32 - 2),
    "camera_id": (-1, 1000),
    "video_interval": (0, INFINITY),
    "batch_length": (2, INFINITY),
    "horizon_length": (2, INFINITY),
    "kl_divergence_scale": (0, 1e9),
    "free_nats": (0, 1e9),
    "discount": (0, 1),
    "lambda_": (0, 1),
    "continue_scale": (0, 1e9),
    "exploration_noise": (0, 1e9),
    "grad_norm_type": (1, INFINITY),
    "min_std": (0, 1e9),
    "num_ensemble": (2, 1000),
}


class ConfigError(ValueError):
    """A configuration that cannot work. Its one line says what is wrong and what to do."""


def load_config(name, overrides=()):
    """The configuration called `name`, as a checked attridict in which every key has a value.

    name: a file of configs/, with or without .yml, or a path. Keys that neither it nor its `base`
    sets keep the defaults of configs/dreamer.yml. overrides: "dotted.key=value" strings, the value
    in YAML. Raises ConfigError.
    """
    defaults = flatten(_read(DEFAULTS))
    values = dict(defaults)
    for source, settings in _layers(find_config(name)):
        values |= _checked(settings, defaults, source)
    for override in overrides:
        values |= _checked(_parse_override(override), defaults, "command line")
    _check_together(values, defaults)
    return attridict(_unflatten(values))


def load_run_config(path, overrides):
    """The configuration of a run that goes on. Raises ConfigError for overrides of what its past depends on."""
    config, before = load_config(path, overrides), flatten(load_config(path))
    for key, value in flatten(config).items():
        if value != before[key] and key not in MAY_CHANGE:
            raise ConfigError(f"{key}: {before[key]} cannot become {value} in a run that goes on; start a new one")
    return config


def find_config(name):
    """The path of a configuration: a path as it is, else a file of configs/."""
    for candidate in (Path(name), CONFIGS / name, CONFIGS / f"{name}.yml"):
        if os.path.isfile(candidate):  # False, too, for what cannot be a path
            return candidate.resolve()
    known = sorted(path.stem for path in CONFIGS.glob("*.yml"))
    nearest = difflib.get_close_matches(Path(name).stem, known, n=3, cutoff=0.3) or known
    raise ConfigError(f"no configuration {str(name)!r}; the nearest names: {', '.join(nearest)}")


def check_embedding_size(given, derived):
    """Raise ConfigError unless the size that a configuration gives, if any, is the encoder's."""
    if given not in (None, derived):
        raise ConfigError(
            f"parameters.dreamer.embedded_state_size: {given}, but the encoder makes {derived}; leave the key out"
        )


def dump_config(config):
    """The configuration as YAML text, which load_config reads again."""
    return yaml.safe_dump(config, sort_keys=False)


def _layers(path, above=()):
    """(path, flat settings) of the files that `path` builds on, the lowest first."""
    if path in above:
        raise ConfigError(f"{path}: its base leads back to itself")
    tree = _read(path)
    base = tree.pop("base", None)
    layers = []
    if base is not None:
        beside = path.parent / str(base)
        layers = _layers(find_config(beside if os.path.isfile(beside) else str(base)), (*above, path))
    return [*layers, (path, flatten(tree))]


def _read(path):
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: text that is no UTF-8, an impossible date
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of keys to values")
    return tree


def _parse_override(override):
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"{override!r}: an override is written key=value, such as operation.seed=1")
    try:
        return {key: yaml.safe_load(value)}
    except (ValueError, yaml.YAMLError):
        raise ConfigError(f"{override!r}: the value is not YAML; put it in quotes") from None


def _checked(settings, defaults, source):
    """The settings with their values in the right type; raises ConfigError for any that cannot be."""
    checked = {}
    for key, value in settings.items():
        if key in IGNORED:
            print(f"warning: {source}: {key} is ignored: nothing reads it", file=sys.stderr)
        elif value in (None, {}) and any(known.startswith(f"{key}.") for known in defaults):
            continue  # a section with nothing in it
        elif key not in defaults:
            raise ConfigError(f"{source}: unknown key {key}; {_nearest_key(key, defaults)}")
        else:
            checked[key] = _convert(key, value, defaults[key])
    return checked


def _nearest_key(key, defaults):
    inside = [known for known in defaults if known.startswith(f"{key}.")]
    if inside:
        return f"it is a section: set one of its keys, such as {inside[0]}"
    return f"the nearest is {max(defaults, key=lambda known: _likeness(key, known))}"


def _likeness(key, known):
    """Of the paths and of their last parts: a typo there is lost in a long path."""
    pairs = [(key, known), (key.split(".")[-1], known.split(".")[-1])]
    return sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)


def _convert(key, value, default):
    """`value` as the kind of number, text or truth value that the key takes."""
    kind = OPTIONAL.get(key, type(default))
    if value is None and key in OPTIONAL:
        return None
    if kind in (int, float):
        return _check_range(key, _number(key, value, kind))
    if kind is str and type(value) in (int, float):
        value = str(value)
    if not isinstance(value, kind):
        raise ConfigError(f"{key}: expected {'True or False' if kind is bool else 'text'}, not {value!r}")
    return _check_text(key, value) if kind is str else value


def _number(key, value, kind):
    """A number from a number or from text such as 8e-5, which YAML 1.1 takes for a string."""
    try:
        number = float(value)
        if not isinstance(value, bool) and (kind is float or number.is_integer()):
            return kind(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(f"{key}: expected a{' whole' if kind is int else ''} number, not {value!r}")


def _check_range(key, number):
    low, high = RANGES.get(key.split(".")[-1], (0, INFINITY))
    bounded = key.split(".")[-1] in RANGES
    if bounded and not low <= number <= high:
        raise ConfigError(
            f"{key}: must be {f'{low} or more' if high == INFINITY else f'{low} to {high}'}, not {number}"
        )
    if not bounded and not 0 < number < INFINITY:
        raise ConfigError(f"{key}: must be a finite number above 0, not {number}")
    return number


def _check_text(key, text):
    choices = ACTIVATIONS if key.endswith(".activation") else CHOICES.get(key)
    if choices and text not in choices:
        raise ConfigError(f"{key}: must be one of {', '.join(choices)}, not {text!r}")
    pattern, wanted = PATTERNS.get(key, (".*", ""))
    if not re.fullmatch(pattern, text):
        raise ConfigError(f"{key}: must be {wanted}, not {text!r}")
    return text


def _check_together(values, defaults):
    capacity, length = values["parameters.dreamer.buffer.capacity"], values["parameters.dreamer.batch_length"]
    if capacity < length:
        raise ConfigError(
            f"parameters.dreamer.buffer.capacity: {capacity} steps cannot hold a batch_length of {length}"
        )
    if values["algorithm"] != "plan2explore":
        for key in values:
            if ".plan2explore." in key and values[key] != defaults[key]:
                print(f"warning: {key} is ignored: {values['algorithm']} does not read it", file=sys.stderr)


def flatten(tree, prefix=""):
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _unflatten(flat):
    tree = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree
