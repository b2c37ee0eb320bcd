"""Examine an environment: play it, find problems, suggest a configuration, predict a run's time and disk."""

from copy import deepcopy
from typing import Any, NamedTuple

from dreamer.config.load import Config, load_config
from dreamer.config.schema import config_names
from dreamer.config.yaml_files import unflatten
from dreamer.errors import ConfigError, EnvError, EnvFault, nearest, one_line
from dreamer.tools.check.findings import NOTE, Finding, costs, findings, refused
from dreamer.tools.check.play import COMPARED, Play, play
from dreamer.tools.check.prediction import Prediction, predict
from dreamer.tools.check.report import play_facts
from dreamer.tools.check.suggestion import Setting, suggest
from dreamer.training.device import check_precision, select_device
from dreamer.training.logger import check_loggers
from dreamer.training.schedule import check_window, longest_seed_window

BASE = "quick-v3"  # the configuration for an environment without one, and the base of suggestions
AGAIN = 4.0  # seconds of the second play


class Subject(NamedTuple):
    """Holds the subject of a check."""

    config: Config
    words: str  # of the command line that name it
    is_given: bool  # whether the user has named a configuration


class Result(NamedTuple):
    """Holds the result of a check."""

    findings: list[Finding]
    facts: dict[str, Any] = {}  # of random play
    predictions: dict[str, Prediction] = {}  # by the configuration's name, "" for the suggested one
    suggestion: list[Setting] = []
    play: Play | None = None


def examine(asked: Subject, pictures: bool = False) -> Result:
    """Check an environment by random play and a few updates, and return the result. pictures: whether to keep frames.

    An error with which training would end becomes a finding with the same line.
    """
    config, found = asked.config, []
    try:
        played = play(section(config), config.operation.seed, pictures)
    except (EnvError, EnvFault) as error:
        found.append(made_of(error, asked))
        rendered = None if asked.is_given else play_from_pixels(config, pictures)
        if rendered is None:
            return Result(found)
        config, played = rendered
        otherwise = "the suggested configuration learns from what it renders"
        found[0] = found[0]._replace(advice="; or ".join(filter(None, (found[0].advice, otherwise))))
    again = None if played.trouble else play_again(config)
    found += findings(played, again, config, asked.is_given)
    suggestion = suggest(config, played) if played.env_steps else []
    predictions: dict[str, Prediction] = {}
    if asked.is_given and played.env_steps:
        predictions |= predicted(asked.words, config, played, found)
    if suggestion:
        predictions |= predicted("", configuration(suggestion), played, found)
    found.sort(key=Finding.rank)
    return Result(found, play_facts(played, again), predictions, suggestion, played)


def section(config: Config) -> dict[str, Any]:
    """Return the section `environment` for a single environment."""
    return {**config.environment, "num_envs": 1}


def made_of(error: Exception, asked: Subject) -> Finding:
    """Return the finding about an environment that cannot be made; its name may be a misspelt configuration's."""
    finding = refused(error)
    if "did you mean" in finding.what and not asked.is_given:
        names = nearest(asked.words.split()[0], config_names()).removeprefix("; did you mean ").rstrip("?")
        return finding._replace(advice=f"or is a configuration meant: {names}?")
    return finding


def play_from_pixels(config: Config, pictures: bool) -> tuple[Config, Play] | None:
    """Return (configuration, random play) with rendered pixels as observations; None if that fails."""
    changed = deepcopy(config)
    changed.environment.from_pixels = True
    try:
        return changed, play(section(changed), changed.operation.seed, pictures)
    except (EnvError, EnvFault):
        return None


def play_again(config: Config) -> Play | None:
    """Play again, shorter and with the same seed, and return the play; None if no second environment can be made."""
    try:
        return play(section(config), config.operation.seed, seconds=AGAIN, steps=COMPARED)
    except (EnvError, EnvFault):
        return None


def configuration(suggestion: list[Setting]) -> Config:
    """Return the configuration that consists of suggested settings on top of BASE."""
    settings: dict[str, Any] = {"base": f"{BASE}.yml"}
    return load_config(settings | unflatten({each.key: each.value for each in suggestion}))


def predicted(name: str, config: Config, played: Play, found: list[Finding]) -> dict[str, Prediction]:
    """Return {name: prediction of a run's time and disk}; {} if that cannot be measured. Add findings to `found`.

    name: "" for the suggested configuration.
    """
    settings, limit = config.parameters.dreamer, played.limit
    try:
        if name:
            check_loggers(config.operation.loggers)
            check_precision(config.operation.precision, select_device(config.operation.device))
        longest = longest_seed_window(settings, limit and limit // config.environment.frame_skip)
        if longest:
            check_window(settings, longest)
        prediction = predict(config, played)
    except (ConfigError, EnvError, EnvFault) as error:
        found.append(refused(error))
        return {}
    except (RuntimeError, MemoryError) as error:  # torch raises both if there is too little memory
        found.append(Finding(NOTE, f"an update could not be measured: {one_line(error)[:200]}"))
        return {}
    found += costs(prediction.hours, bool(name))
    return {name: prediction}
