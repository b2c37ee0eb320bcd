"""Examine an environment: play it, find problems, suggest a configuration, predict a run's time and disk."""

from copy import deepcopy
from typing import Any, NamedTuple

from dreamer.config.load import Config, load_config
from dreamer.config.schema import config_names
from dreamer.config.yaml_files import unflatten
from dreamer.errors import ConfigError, EnvError, EnvFault, nearest, one_line
from dreamer.tools.check.findings import NOTE, Finding, duration_findings, error_finding, find_problems
from dreamer.tools.check.play import COMPARED, Play, play_randomly
from dreamer.tools.check.prediction import Prediction, predict
from dreamer.tools.check.report import play_facts
from dreamer.tools.check.suggestion import Setting, suggest
from dreamer.training.device import check_precision, select_device
from dreamer.training.logger import check_loggers
from dreamer.training.schedule import check_window, longest_seed_window

SECOND_PLAY_SECONDS = 4.0  # seconds of the second play


class CheckRequest(NamedTuple):
    """Holds the configuration to check."""

    config: Config
    arguments: str  # the command-line arguments that name it
    config_is_named: bool  # whether the user has named a configuration


class Result(NamedTuple):
    """Holds the result of a check."""

    findings: list[Finding]
    facts: dict[str, Any] = {}  # of random play
    predictions: dict[str, Prediction] = {}  # by the configuration's name, "" for the suggested one
    suggestion: list[Setting] = []
    play: Play | None = None


def examine(request: CheckRequest, keep_frames: bool = False) -> Result:
    """Check an environment by random play and a few updates, and return the result.

    keep_frames: whether the result has frames of the first episode. An error with which training would end becomes a
    finding with the same text.
    """
    config, findings = request.config, []
    try:
        first_play = play_randomly(single_env_settings(config), config.operation.seed, keep_frames)
    except (EnvError, EnvFault) as error:
        findings.append(creation_finding(error, request))
        pixel_play = None if request.config_is_named else play_from_pixels(config, keep_frames)
        if pixel_play is None:
            return Result(findings)
        config, first_play = pixel_play
        pixel_advice = "the suggested configuration learns from what it renders"
        if findings[0].advice:
            pixel_advice = f"{findings[0].advice}; or {pixel_advice}"
        findings[0] = findings[0]._replace(advice=pixel_advice)
    second_play = None if first_play.error else play_again(config)
    findings += find_problems(first_play, second_play, config, request.config_is_named)
    suggestion = suggest(config, first_play) if first_play.env_steps else []
    predictions: dict[str, Prediction] = {}
    if request.config_is_named and first_play.env_steps:
        predictions |= predict_run(request.arguments, config, first_play, findings)
    if suggestion:
        predictions |= predict_run("", suggested_config(suggestion), first_play, findings)
    findings.sort(key=Finding.rank)
    return Result(findings, play_facts(first_play, second_play), predictions, suggestion, first_play)


def single_env_settings(config: Config) -> dict[str, Any]:
    """Return the section `environment` of the configuration, with one environment in place of several."""
    return {**config.environment, "num_envs": 1}


def creation_finding(error: Exception, request: CheckRequest) -> Finding:
    """Return the finding about an environment that cannot be made. It suggests configurations with a similar name."""
    finding = error_finding(error)
    if "did you mean" in finding.what and not request.config_is_named:
        names = nearest(request.arguments.split()[0], config_names()).removeprefix("; did you mean ").rstrip("?")
        return finding._replace(advice=f"or is a configuration meant: {names}?")
    return finding


def play_from_pixels(config: Config, keep_frames: bool) -> tuple[Config, Play] | None:
    """Return (configuration, random play) with rendered pixels as observations; None if that fails."""
    changed = deepcopy(config)
    changed.environment.from_pixels = True
    try:
        return changed, play_randomly(single_env_settings(changed), changed.operation.seed, keep_frames)
    except (EnvError, EnvFault):
        return None


def play_again(config: Config) -> Play | None:
    """Play again, shorter and with the same seed, and return the play; None if no second environment can be made."""
    try:
        return play_randomly(
            single_env_settings(config), config.operation.seed, seconds=SECOND_PLAY_SECONDS, max_agent_steps=COMPARED
        )
    except (EnvError, EnvFault):
        return None


def suggested_config(suggestion: list[Setting]) -> Config:
    """Return the configuration that consists of the suggested settings."""
    return load_config(unflatten({setting.key: setting.value for setting in suggestion}))


def predict_run(name: str, config: Config, play: Play, findings: list[Finding]) -> dict[str, Prediction]:
    """Return {name: prediction of a run's time and disk}; {} if that cannot be measured. Add findings to `findings`.

    name: "" for the suggested configuration.
    """
    settings = config.parameters.dreamer
    max_agent_steps = play.time_limit and play.time_limit // config.environment.frame_skip
    try:
        if name:
            check_loggers(config.operation.loggers)
            check_precision(config.operation.precision, select_device(config.operation.device))
        longest = longest_seed_window(settings, max_agent_steps)
        if longest:
            check_window(settings, longest)
        prediction = predict(config, play)
    except (ConfigError, EnvError, EnvFault) as error:
        findings.append(error_finding(error))
        return {}
    except (RuntimeError, MemoryError) as error:  # torch raises both if there is too little memory
        findings.append(Finding(NOTE, f"an update could not be measured: {one_line(error)[:200]}"))
        return {}
    findings += duration_findings(prediction.hours, bool(name))
    return {name: prediction}
