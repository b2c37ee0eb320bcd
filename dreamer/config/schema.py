"""Check the keys and values of a configuration with pydantic; the schema is `configs/dreamer.yml`.

Only keys in that file are allowed. A value must have the type of its default and be within the tables here.
"""

import difflib
import re
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, create_model

from dreamer.config.names import CONFIGS, config_names
from dreamer.config.yaml_files import ECHOED, MAPPINGS, echo, flatten, read_mapping
from dreamer.errors import ConfigError

DEFAULTS = CONFIGS / "dreamer.yml"
# Keys of older configurations: the values that make no difference, and why any other is ignored.
REMOVED: dict[str, tuple[list[Any], str]] = {
    "operation.save": ([], "nothing reads it"),
    "parameters.dreamer.embedded_state_size": ([None], "it follows from the encoder"),
    "parameters.dreamer.proportional_updates": (
        [False],
        "an iteration makes collect_interval updates; train_ratio makes them as steps are stored",
    ),
}

# The keys of BENCHMARKS in dreamer/envs/packages.py, which this package may not import.
PACKAGED_BENCHMARKS = "crafter", "memory-maze", "metaworld", "minatar", "minigrid"
CHOICES = {  # by the last part of the key, as in the tables below
    "algorithm": ("dreamer", "plan2explore"),
    "version": (1, 2, 3),
    "precision": ("float32", "bfloat16"),
    "loggers": ("tensorboard", "jsonl", "wandb", "trackio"),
    **dict.fromkeys(("compile", "background_evaluation"), ("auto", True, False)),
    "evaluation_device": ("same", "cpu"),
    "benchmark": ("dmc", "gym", "gymnasium", "atari", *PACKAGED_BENCHMARKS, "python"),
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
    "threads": (r"auto|[1-9]\d{0,2}", "auto or a number from 1 to 999"),
    "success_key": (r".+", "the name of an entry of the environment's info"),
    "initialize_from": (r"(?!latest$).+", "the folder of a run"),
    "dataset": (r".+", "the folder of a dataset, as dreamer data import writes it"),
    "log_dir": (r"[\w.+=-]+", "text of letters, digits and any of _ . + = -"),
}
REAL = {"kl_dynamics_scale", "kl_representation_scale", "train_ratio"}  # keys that are null by default, else numbers

POSITIVE = {  # numbers that must be above 0
    *("train_ratio", "kl_dynamics_scale", "kl_representation_scale"),
    *("model_learning_rate", "actor_learning_rate", "critic_learning_rate", "one_step_model_learning_rate"),
    *("adam_epsilon", "clip_grad", "agc", "max_std", "init_std", "mean_scale", "intrinsic_reward_scale"),
}
HUGE = 10**300
MAX_COUNT = 10**12  # the highest number of steps, updates, episodes or iterations
RANGES = {  # the lowest and the highest value; any other number must be finite
    "seed": (0, 2**32 - 2),
    "camera_id": (-1, 1000),
    "num_ensemble": (2, 1000),
    **dict.fromkeys(("checkpoint_interval", "frame_skip", "time_limit", "train_iterations"), (1, MAX_COUNT)),
    **dict.fromkeys(("max_env_steps", "collect_interval", "num_interaction_episodes"), (1, MAX_COUNT)),
    **dict.fromkeys(("num_evaluate", "evaluate_interval", "explore_env_steps", "slow_critic_interval"), (1, MAX_COUNT)),
    **dict.fromkeys(("video_interval", "keep_every", "pretrain", "warm_up", "seed_episodes"), (0, MAX_COUNT)),
    "capacity": (1, 10**8),
    "grad_norm_type": (1, None),
    "noops": (0, 1000),
    "num_envs": (1, 1024),  # each is a process with some 200 MB
    # Beyond these, one layer, picture or row of a batch takes gigabytes.
    **dict.fromkeys(("height", "width"), (1, 1024)),
    **dict.fromkeys(("depth", "num_layers"), (1, 512)),
    **dict.fromkeys(("kernel_size", "stride"), (1, 64)),
    **dict.fromkeys(("hidden_size", "deterministic_size", "stochastic_size"), (1, 2**15)),
    **dict.fromkeys(("batch_length", "horizon_length", "imagine_last"), (2, 10**4)),
    "batch_size": (1, 10**4),
    **dict.fromkeys(("discount", "lambda_", "unimix", "weight_decay", "slow_critic_fraction"), (0, 1)),
    "sticky_actions": (0, 1),
    **dict.fromkeys(("kl_divergence_scale", "free_nats", "continue_scale", "exploration_noise", "min_std"), (0, 10**9)),
    **dict.fromkeys(("entropy_scale", "replay_critic_scale", "outscale"), (0, 10**9)),
    **dict.fromkeys(("blocks", "classes"), (1, 1024)),
    "bins": (3, 1023),
}
MEMORY = {  # how much memory the highest values take
    "capacity": "100,000,000 steps of 64x64 pixels take 1.2 TB of disk, and 0.4 GB of memory for their index",
    "num_envs": "each environment is a process of some 200 MB",
    **dict.fromkeys(
        ("height", "width"), "an image of 1024x1024 pixels takes 3 MB as uint8 and 13 MB as float32, in each step"
    ),
    **dict.fromkeys(
        ("batch_size", "batch_length"), "10,000 images of 64x64 pixels take 0.1 GB as uint8 and 0.5 GB as float32"
    ),
    **dict.fromkeys(("hidden_size", "deterministic_size"), "a layer of 32,768 units takes 4 GB"),
    "stochastic_size": "weights between 32,768 of them and a layer of 32,768 units take 4 GB",
    "horizon_length": "10,000 imagined states for each step of a batch of 50x50 take 23 GB",
}


def check(settings: dict[str, Any], source: Path | str) -> dict[str, Any]:
    """Return the settings with their values converted to the right type. Raises ConfigError for a wrong one."""
    known, given = _model().model_fields, {}
    for key, value in settings.items():
        if key in REMOVED:
            continue
        if key in MAPPINGS:
            given[key] = value
        elif value != {} or not any(other.startswith(f"{key}.") for other in known):
            given[key] = None if value == {} else value
    try:
        return _model().model_validate(given).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_complaint(error.errors()[0], known)}") from None


def warn_of_removed(settings: dict[str, Any], source: Path | str) -> None:
    """Print a warning for each key of older configurations whose value would have made a difference."""
    for key, value in settings.items():
        harmless, reason = REMOVED.get(key, ([value], ""))
        if value not in harmless:
            print(f"warning: {source}: {key} is ignored: {reason}", file=sys.stderr)


@cache
def _model():
    """Return the pydantic model of all keys, each of them optional."""
    fields = {key: _field(_name(key), default) for key, default in flatten(read_mapping(DEFAULTS)).items()}
    return create_model("Configuration", __config__=ConfigDict(extra="forbid"), **fields)


def _name(key):
    """Return the name by which the tables know a key: its last part, or its last two."""
    parts = key.split(".")
    longer = ".".join(parts[-2:])
    return longer if longer in CHOICES else parts[-1]


def _field(name, default):
    """Return a key's (type, Field) for pydantic, from its default's type (null: a number or text) and the tables."""
    kind_if_null = float if name in REAL else int
    kind = kind_if_null if default is None else type(default)
    if name in CHOICES:
        choices = CHOICES[name]
        names = ", ".join(map(str, choices))
        if kind is list:
            words = f"a list of any of {names}, such as [{choices[0]}, {choices[1]}]"
            kind = list[Literal[choices]]
        else:
            words = f"one of {names}"
            kind = Literal[choices]
    elif kind is str or name in PATTERNS:
        pattern, words = PATTERNS.get(name, (".*", "a line of text"))
        kind = Annotated[str, Field(coerce_numbers_to_str=True, pattern=re.compile(rf"\A({pattern})\Z"))]
    elif kind in (int, float):
        bounds, words = _bounds(name, kind)
        kind = Annotated[kind, Field(strict=True, **bounds), BeforeValidator(_number)]
    elif kind is dict:
        words = "a mapping of names to values"
        kind = dict[str, JsonValue]
    else:
        words = "True or False" if kind is bool else f"a {kind.__name__}"
        kind = Annotated[kind, Field(strict=True)]
    if default is None:
        words = f"{words}, or null"
        kind = kind | None
    return kind, Field(None, description=words)


def _bounds(name, kind):
    """Return (pydantic's bounds of a number, a description of such a number)."""
    words = "a whole number" if kind is int else "a number"
    if name in RANGES:
        low, high = RANGES[name]
        words += f" of {low} or more" if high is None else f" from {low} to {high}"
        return {"ge": low, "le": high}, words
    bounds = {}
    if kind is float:
        words = "a finite number"
        bounds["allow_inf_nan"] = False
    if name in POSITIVE:
        words += " above 0"
        bounds["gt"] = 0
    return bounds, words


def _number(value):
    """Return the number in a text such as 8e-5, which YAML 1.1 reads as a string. Return 16.0 as 16."""
    number = float(value) if isinstance(value, str) else value
    if isinstance(number, int) and abs(number) > HUGE:
        raise ValueError("no float can hold it")
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _complaint(error, known):
    """Return one of pydantic's errors in a line. known: the model's fields."""
    key = error["loc"][0]
    if key in known:
        given = error["input"]
        advice = f"; there is a configuration of that name: --config … {given}" if given in config_names() else ""
        return f"{key}: expected {known[key].description}, not {echo(given)}{advice or _memory(_name(key), given)}"
    key = key[:ECHOED]
    keys_in_section = [other for other in known if other.startswith(f"{key}.")]
    if keys_in_section:
        return f"{key}: it is a section: set one of its keys, such as {keys_in_section[0]}"

    def likeness(other):  # of the paths and of their last parts: a typo there is lost in a long path
        pairs = [(key, other), (key.split(".")[-1], other.split(".")[-1])]
        return sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    return f"unknown key {key}; the nearest is {max(known, key=likeness)}"


def _memory(name, given):
    """Return a hint on the memory that the highest value takes, if a number is above it, else ""."""
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    return f"; {MEMORY[name]}" if name in MEMORY and is_number and given > RANGES[name][1] else ""
