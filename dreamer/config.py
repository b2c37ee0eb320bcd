"""Loads a configuration: YAML files, one on top of the other, then overrides, checked by pydantic.

`configs/dreamer.yml` is the schema: what is not in it is not a key, and a value must be of the kind
of its default. Every complaint is a ConfigError of one line that says what is wrong and what to do.
"""

import difflib
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import attridict
import yaml
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, create_model

from dreamer.combinations import conflict, unread
from dreamer.program import PROGRAM

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DEFAULTS = CONFIGS / "dreamer.yml"
CONFIGURATION = "config.yml"  # in the folder of a run: every key
IGNORED = {"operation.save"}  # keys of older configurations which nothing reads

MAY_CHANGE = {  # in a run that goes on
    "operation.device",
    "operation.fast_paths",
    "operation.precision",
    "operation.video_interval",
    "operation.checkpoint_interval",
    "operation.background_evaluation",
    "operation.evaluation_device",
    "parameters.dreamer.train_iterations",
    "parameters.dreamer.collect_interval",
    "parameters.dreamer.num_evaluate",
    "parameters.dreamer.evaluate_interval",
    "parameters.plan2explore.explore_env_steps",
}

ALIASES = {  # of the algorithm, as older runs name it; the first, as configurations of this family do
    f"dreamer-v{version}": {"algorithm": "dreamer", "version": version} for version in (1, 2, 3)
}
CHOICES = {  # by the last part of the key, as in the tables below
    "algorithm": ("dreamer", "plan2explore"),
    "version": (1, 2, 3),
    "precision": ("float32", "bfloat16"),
    "evaluation_device": ("same", "cpu"),
    "benchmark": ("dmc", "gym"),
    "render_quality": ("full", "fast"),
    "explorer": ("disagreement", "random"),
    "target": ("embedding", "stochastic"),
    "disagreement": ("variance", "std", "population_std"),
    "latent": ("gaussian", "categorical"),
    "cell": ("gru", "layer_norm_gru", "block_gru"),
    "norm": ("none", "layer", "rms"),
    "initialization": ("glorot", "truncated_normal"),
    "encoder.architecture": ("valid", "max_pool", "strided"),
    "decoder.architecture": ("transposed", "upsampled"),
    "likelihood": ("normal", "squared_error"),
    "distribution": ("normal", "two_hot"),
    "actor.distribution": ("tanh_normal", "truncated_normal", "bounded_normal"),
    "reward_transform": ("none", "tanh"),
    "actor_gradient": ("dynamics", "reinforce", "both", "auto"),
    "slow_critic": ("none", "target", "regularizer"),
    "sampling": ("windows", "episodes"),
    "seed_policy": ("random", "actor"),
    "optimizer": ("adam", "keras_adam", "laprop"),
    "activation": ("ELU", "ReLU", "LeakyReLU", "GELU", "SiLU", "Tanh", "Softplus", "Mish"),
}
PATTERNS = {
    "device": (r"auto|cpu|cuda(:(0|[1-9]\d?))?", "auto, cpu, cuda or cuda:<number>"),
    "initialize_from": (r"(?!latest$).+", "the folder of a run"),
    "log_dir": (r"[\w.+=-]+", "text of letters, digits and any of _ . + = -"),
}
REAL = {"kl_dynamics_scale", "kl_representation_scale", "train_ratio"}  # numbers, although null by default
TEXT = re.compile(r"[-+]?(0[0-7_]+|[\d_]+(:[\d_.]+)+)")  # that YAML 1.1 takes for numbers to the base 8 or 60
LONGEST = 10**6  # bytes of a file
MOST = 10_000  # values in a file, each counted as often as an alias repeats it

POSITIVE = {  # numbers that must be above 0
    *("checkpoint_interval", "frame_skip", "train_iterations", "collect_interval", "train_ratio"),
    *("num_interaction_episodes", "seed_episodes", "num_evaluate", "evaluate_interval", "explore_env_steps"),
    *("kl_dynamics_scale", "kl_representation_scale", "slow_critic_interval", "embedded_state_size", "capacity"),
    *("model_learning_rate", "actor_learning_rate", "critic_learning_rate", "one_step_model_learning_rate"),
    *("adam_epsilon", "clip_grad", "agc", "max_std", "init_std", "mean_scale", "intrinsic_reward_scale"),
}
RANGES = {  # the lowest and the highest value; any other number must be finite
    "seed": (0, 2**32 - 2),
    "camera_id": (-1, 1000),
    "num_ensemble": (2, 1000),
    **dict.fromkeys(("video_interval", "pretrain"), (0, None)),
    "grad_norm_type": (1, None),
    "num_envs": (1, 1024),  # each is a process with some 200 MB
    # Beyond these, one layer, picture or row of a batch takes gigabytes.
    **dict.fromkeys(("height", "width"), (1, 1024)),
    **dict.fromkeys(("depth", "num_layers"), (1, 512)),
    **dict.fromkeys(("kernel_size", "stride"), (1, 64)),
    **dict.fromkeys(("hidden_size", "deterministic_size", "stochastic_size"), (1, 2**15)),
    **dict.fromkeys(("batch_length", "horizon_length"), (2, 10**4)),
    "batch_size": (1, 10**4),
    **dict.fromkeys(("discount", "lambda_", "unimix", "weight_decay", "slow_critic_fraction"), (0, 1)),
    **dict.fromkeys(("kl_divergence_scale", "free_nats", "continue_scale", "exploration_noise", "min_std"), (0, 10**9)),
    **dict.fromkeys(("entropy_scale", "replay_critic_scale", "outscale", "warm_up"), (0, 10**9)),
    **dict.fromkeys(("blocks", "classes"), (1, 1024)),
}


class ConfigError(ValueError):
    """A configuration that cannot work. Its one line says what is wrong and what to do."""


def load_config(names, overrides=()):
    """The configuration called so, as a checked attridict in which every key has a value.

    names: a file of configs/, with or without .yml, or a path; or a list of such, each on top of the one before, which
    then name the run. Keys that neither they nor their `base`s set keep the defaults of configs/dreamer.yml.
    overrides: "dotted.key=value" strings, the value in YAML. Raises ConfigError.
    """
    paths = [find_config(name) for name in ([names] if isinstance(names, (str, Path)) else names)]
    defaults = flatten(_read(DEFAULTS))
    values, own = dict(defaults), set()  # own: what the user has written
    each = [_layers(path) for path in paths]
    layers = [layer for several in each for layer in several]
    _check_order(paths, each)
    if len(paths) > 1:
        layers.append(("--config", {"operation.log_dir": "-".join(path.stem for path in paths)}))
    for source, settings in [*layers, *map(_parse_override, overrides)]:
        checked = _check(settings, source)
        values |= checked
        if CONFIGS not in Path(source).parents and Path(source).name != CONFIGURATION:
            own |= checked.keys()
    _check_together(values, [key for key in values if key in own and values[key] != defaults[key]])
    return attridict(_unflatten(values))


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
            raise ConfigError(f"{key}: {before[key]} cannot become {value} in a run that goes on; start a new one")


class PastConfiguration:
    """The configuration as a part of a checkpoint: of a run whose past depends on another one, it cannot be loaded."""

    def __init__(self, config, path):
        """path: of the file that the configuration was read from."""
        self.values, self.path = flatten(config), path

    def state_dict(self):
        return self.values

    def load_state_dict(self, state):
        """Raises ConfigError. Keys that an older version did not have are as good as unchanged."""
        state = _renamed(state)
        for key in sorted(self.values.keys() & state.keys() - MAY_CHANGE):
            if self.values[key] != state[key]:
                raise ConfigError(
                    f"{key}: {self.values[key]} in {self.path}, but the checkpoint was made with {state[key]}; put it "
                    f"back, or start anew: {PROGRAM} --config {self.path}"
                )


def find_config(name):
    """The path of a configuration: a path as it is, else a file of configs/."""
    for candidate in (Path(name), CONFIGS / name, CONFIGS / f"{name}.yml"):
        if os.path.isfile(candidate):  # False, too, for what cannot be a path
            return candidate.resolve()
    known = sorted(path.stem for path in CONFIGS.glob("*.yml"))
    nearest = difflib.get_close_matches(Path(name).stem, known, n=3, cutoff=0.3) or known
    raise ConfigError(f"no configuration {str(name)!r}; the nearest names: {', '.join(nearest)}")


def is_name(text):
    """Whether a file of configs/ is called so."""
    return str(text) in {path.stem for path in CONFIGS.glob("*.yml")}


def check_embedding_size(given, derived):
    """Raise ConfigError unless the size that a configuration gives, if any, is the encoder's."""
    if given not in (None, derived):
        key = "parameters.dreamer.embedded_state_size"
        raise ConfigError(f"{key}: {given}, but the encoder makes {derived}; leave the key out")


def dump_config(config):
    """The configuration as YAML text, which load_config reads again."""
    return yaml.safe_dump(config, sort_keys=False)


def flatten(tree, prefix=""):
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat = {}
    for name, value in tree.items():
        inside = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{name}.") if inside else {f"{prefix}{name}": value}
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


def _layers(path, above=()):
    """(path, flat settings) of the files that `path` builds on, the lowest first."""
    if path in above:
        raise ConfigError(f"{path}: its base leads back to itself")
    tree, layers = _read(path), []
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


def _read(path):
    tree = _parse(path, lambda: _text_of(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of keys to values")
    return tree


def _text_of(path):
    if path.stat().st_size > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} bytes")
    return path.read_text(encoding="utf-8")


def _parse_override(override):
    key, equals, value = override.partition("=")
    if not key or not equals:
        raise ConfigError(f"{override!r}: an override is written key=value, such as operation.seed=1")
    return "command line", {key: _parse(repr(override), lambda: value, "; put text in quotes")}


def _parse(source, read, advice=""):
    try:
        return yaml.load(read(), _Loader)
    except yaml.MarkedYAMLError as error:
        reason = f"{error.problem} (line {error.problem_mark.line + 1})"
    except (OSError, yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # the last three: !!bool maybe
        reason = " ".join(str(error).split())
    except RecursionError:
        reason = "it is nested too deeply"
    raise ConfigError(f"{source}: not readable as YAML: {reason}{advice}")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is twice in one mapping, and more than MOST values. A key with nothing behind it reads as {},
    an empty section; 010 and 1:30, which YAML 1.1 takes for 8 and 90, as text."""

    def __init__(self, text):
        super().__init__(text)
        self.values, self.sizes = 0, {}  # the values of what has an anchor

    def compose_node(self, parent, index):
        event, before = self.peek_event(), self.values
        repeated = isinstance(event, yaml.AliasEvent) and event.anchor in self.anchors
        self.values += self.sizes.get(event.anchor, MOST) if repeated else 1  # MOST: an alias within what it repeats
        if self.values > MOST:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST} values", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        if event.anchor and not repeated:
            self.sizes[event.anchor] = self.values - before
        return node

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        names = [key.value for key, _ in node.value]
        if twice := [key for key, _ in node.value if names.count(key.value) > 1]:
            raise yaml.MarkedYAMLError(problem=f"{twice[-1].value} is there twice", problem_mark=twice[-1].start_mark)
        return node

    def resolve(self, kind, value, implicit):
        is_text = kind is yaml.ScalarNode and implicit[0] and TEXT.fullmatch(value)
        return self.DEFAULT_SCALAR_TAG if is_text else super().resolve(kind, value, implicit)


_Loader.add_constructor("tag:yaml.org,2002:null", lambda loader, node: None if node.value else {})


@cache
def _model():
    """The pydantic model of all keys, each of which may be left out."""
    fields = {key: _field(_name(key), default) for key, default in flatten(_read(DEFAULTS)).items()}
    return create_model("Configuration", __config__=ConfigDict(extra="forbid"), **fields)


def _name(key):
    """What the tables know a key by: its last part, or its last two."""
    parts = key.split(".")
    longer = ".".join(parts[-2:])
    return longer if longer in CHOICES else parts[-1]


def _field(name, default):
    """(type, Field) of a key for pydantic: its default's kind (null: a number or text), within the tables."""
    kind = type(default) if default is not None else float if name in REAL else int
    if choices := CHOICES.get(name):
        kind, words = Literal[choices], f"one of {', '.join(map(str, choices))}"
    elif kind is str or name in PATTERNS:
        pattern, words = PATTERNS.get(name, (".*", "a line of text"))
        kind = Annotated[str, Field(coerce_numbers_to_str=True, pattern=re.compile(rf"\A({pattern})\Z"))]
    elif kind in (int, float):
        bounds, words = _bounds(name, kind)
        kind = Annotated[kind, Field(strict=True, **bounds), BeforeValidator(_number)]
    else:
        kind, words = Annotated[kind, Field(strict=True)], "True or False" if kind is bool else f"a {kind.__name__}"
    if default is None:
        kind, words = kind | None, f"{words}, or null"
    return kind, Field(None, description=words)


def _bounds(name, kind):
    """(pydantic's bounds of a number, the number in words)."""
    words = "a whole number" if kind is int else "a number"
    if name in RANGES:
        low, high = RANGES[name]
        return {"ge": low, "le": high}, f"{words} of {low} or more" if high is None else f"{words} from {low} to {high}"
    finite, words = ({}, words) if kind is int else ({"allow_inf_nan": False}, "a finite number")
    return (finite | {"gt": 0}, f"{words} above 0") if name in POSITIVE else (finite, words)


def _number(value):
    """Text such as 8e-5, which YAML 1.1 takes for a string, as its number; 16.0 as 16."""
    number = float(value) if isinstance(value, str) else value
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _check(settings, source):
    """The settings with their values in the right type; raises ConfigError for any that cannot be."""
    known, given = _model().model_fields, {}
    if Path(source).name == CONFIGURATION or settings.get("algorithm") == "dreamer-v1":
        settings = _renamed(settings)
    for key, value in settings.items():
        if key in IGNORED:
            print(f"warning: {source}: {key} is ignored: nothing reads it", file=sys.stderr)
        elif value != {} or not any(other.startswith(f"{key}.") for other in known):
            given[key] = None if value == {} else value
    try:
        return _model().model_validate(given).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_complaint(error.errors()[0], known)}") from None


def _complaint(error, known):
    """One of pydantic's errors in a line. known: the model's fields."""
    key = error["loc"][0]
    if key in known:
        advice = f"; there is a configuration of that name: --config … {error['input']}"
        return f"{key}: expected {known[key].description}, not {error['input']!r}" + advice * is_name(error["input"])
    if inside := [other for other in known if other.startswith(f"{key}.")]:
        return f"{key}: it is a section: set one of its keys, such as {inside[0]}"

    def likeness(other):  # of the paths and of their last parts: a typo there is lost in a long path
        pairs = [(key, other), (key.split(".")[-1], other.split(".")[-1])]
        return sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    return f"unknown key {key}; the nearest is {max(known, key=likeness)}"


def _renamed(settings):
    """Settings in today's words."""
    return settings | ALIASES.get(str(settings.get("algorithm")), {})


def _check_together(values, own):
    """Raise ConfigError for what cannot work together. own: what the user has written; a line warns of any that
    nothing reads."""
    if reason := conflict(values):
        raise ConfigError(reason)
    for key, reason in unread(values, own).items():
        print(f"warning: {key} is ignored: {reason}", file=sys.stderr)
