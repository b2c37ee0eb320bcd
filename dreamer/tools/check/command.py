"""Run the command `dreamer check`: parse its words, print the result and write the suggested configuration."""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from dreamer.config.load import find_config, load_config, settings_of_environment
from dreamer.envs.calls import run_calls_within
from dreamer.errors import ConfigError
from dreamer.main import preserved_process_settings
from dreamer.tools.argument_parser import Parser, parse_words
from dreamer.tools.check.examine import CheckRequest, Result, examine
from dreamer.tools.check.findings import NOTE, REFUSED, Finding
from dreamer.tools.check.report import contact_sheet, finding_lines, next_steps, play_rows, prediction_rows, table
from dreamer.tools.check.suggestion import BASE, yaml_text
from dreamer.training import torch_settings
from dreamer.training.ending import exit_status
from dreamer.training.program import PROGRAM
from dreamer.training.video import write_picture

FILE = "suggested.yml"
MARK = "# Suggested by dreamer check"  # begins a file that the next check may replace
PICTURES = (".png", ".jpg")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check an environment. Return the exit status: 0, 1 if training would refuse it, 2 for a mistake in the words."""
    options = parse(arguments)
    refuses: list[bool] = []
    with preserved_process_settings():
        status = exit_status(lambda: refuses.append(check(options)))
    return status or int(refuses[0])


def parse(arguments: Sequence[str] | None = None) -> Namespace:
    """Return the options of a command line. arguments: None for `sys.argv`."""
    about = "Play an environment at random and say what is wrong with it, how long training takes, and how to begin."
    parser = Parser("dreamer check", description=about)
    help_ = "an id of gymnasium, my_module:my_function, or names of configurations; "
    help_ += "any key of the configuration, dotted"
    parser.add_argument("words", nargs="+", metavar="ENVIRONMENT|NAME|key=value", help=help_)
    parser.add_argument("--yaml", metavar="FILE", help=f"where the suggested configuration goes ({FILE})")
    parser.add_argument("--picture", metavar="FILE", help="draw frames of an episode as the agent sees them (.png)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    options = parse_words(parser, arguments, expected="an environment or a configuration")
    if options.picture and not options.picture.lower().endswith(PICTURES):
        parser.error(f"argument --picture: expected a file with the ending {' or '.join(PICTURES)}")
    return options


def check_request(options: Namespace) -> CheckRequest:
    """Return the configuration that the options name. Raises ConfigError."""
    names = [word for word in options.words if is_configuration(word)]
    environments = [word for word in options.words if word not in names]
    if len(environments) > 1:
        raise ConfigError(f"check: expected one environment, but none of {', '.join(environments)} is a configuration")
    settings = settings_of_environment("gymnasium", environments[0]) if environments else {}
    env_overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    overrides = [*env_overrides, *options.overrides]
    arguments = " ".join([*options.words, *options.overrides])
    return CheckRequest(load_config(names or [BASE], overrides), arguments, config_is_named=bool(names))


def is_configuration(word: str) -> bool:
    """Return whether a word names a configuration."""
    try:
        return bool(find_config(word))
    except ConfigError:
        return False


def check(options: Namespace) -> bool:
    """Check the environment that the options name, print the result, and return whether training would refuse it."""
    request = check_request(options)
    run_calls_within(torch_settings.environment_settings)
    with redirect_stdout(sys.stderr) if options.json else nullcontext():  # environments may print
        result = examine(request, bool(options.picture))
    path = write_suggestion(request, result, options.yaml)
    sheet = contact_sheet(result.play) if result.play and options.picture else None
    if sheet is not None:
        write_picture(options.picture, sheet)
    if options.json:
        print(json.dumps(result_as_dict(result, path)))
    else:
        print("\n".join(result_lines(result, path)))
    if options.picture and sheet is None:
        reason = result.play.render_error if result.play else ""
        print(f"no picture: {reason or 'the agent sees none, and the environment renders none'}", file=sys.stderr)
    return any(finding.level == REFUSED for finding in result.findings)


def result_lines(result: Result, path: str) -> list[str]:
    """Return the lines to print, problems first. file: of the suggested configuration, "" without one."""
    rows = play_rows(result.facts) if result.facts else []
    for name, prediction in result.predictions.items():
        rows += [("", ""), ("with", name or path), *prediction_rows(prediction)]
    refuses = any(finding.level == REFUSED for finding in result.findings)
    return [*finding_lines(result.findings), "", *table(rows), *(next_steps(path, refuses) if path else [])]


def write_suggestion(request: CheckRequest, result: Result, chosen_path: str | None) -> str:
    """Write the suggested configuration and return its path, "" without one. Raises OSError.

    chosen_path: None: FILE, unless that is a file that `dreamer check` has not written.
    """
    if not result.suggestion:
        return ""
    path = Path(chosen_path or FILE)
    if chosen_path is None and path.exists() and not path.read_text(errors="replace").startswith(MARK):
        message = f"{path} is not replaced, since dreamer check has not written it"
        result.findings.append(Finding(NOTE, message, "--yaml FILE writes the suggested configuration elsewhere"))
        return ""
    header = f"{MARK} {request.arguments}, which replaces this file: rename it before you change it.\n"
    header += f"# {PROGRAM} --config {path}"
    path.write_text(yaml_text(result.suggestion, header))
    return str(path)


def result_as_dict(result: Result, path: str) -> dict[str, Any]:
    """Return a result for JSON. file: of the suggested configuration."""
    settings = {setting.key: setting.value for setting in result.suggestion}
    base = settings.pop("base", "").removesuffix(".yml")
    return {
        "findings": [finding._asdict() for finding in result.findings],
        **result.facts,
        "predictions": {name or "suggested": prediction._asdict() for name, prediction in result.predictions.items()},
        "suggested": {"file": path, "base": base, "settings": settings},
    }
