"""Measures how fast a configuration runs here: `python -m dreamer.benchmark`; `--help` tells the rest."""

import argparse
import json
import shlex
import subprocess
import sys

from dreamer.benchmark.measure import MEASUREMENTS, measure
from dreamer.benchmark.report import complete, medians, ratios, table
from dreamer.command_line import positive
from dreamer.config import ConfigError, load_config
from dreamer.envs.make import EnvError

DESCRIPTION = "Measure a configuration on this machine: an update and its parts, acting, rendering, collection, memory."
EPILOG = """examples:
  python -m dreamer.benchmark                       what docs/performance.md reports
  python -m dreamer.benchmark --config quick-cartpole-balance --json
  python -m dreamer.benchmark --config dmc-walker-walk parameters.dreamer.batch_size=16 --only update,memory
  python -m dreamer.benchmark --config dmc-walker-walk --rounds 3 --only update \\
      --variant operation.precision=bfloat16 --variant "--config p2e-dmc-walker-walk"

A variant is measured like the first configuration, with further arguments: overrides, --config, --only,
--updates. With variants or rounds each measurement has a process of its own."""

DEFAULT = "dmc-walker-walk"
VARIANTS = [  # measured where nothing else is asked for
    "operation.fast_paths=False --only update,memory",
    "operation.precision=bfloat16 --only update,memory",
    "--config p2e-dmc-walker-walk --only update,memory",
    "environment.render_quality=fast --only acting,rendering,collection",
    "environment.num_envs=2 --only acting,rendering,collection",
    "environment.render_quality=fast environment.num_envs=2 --only acting,rendering,collection",
]


def main(arguments=None):
    """Returns the exit status: 0; 2 for what cannot be run (one line says why); 130 when interrupted."""
    options = parse(arguments)
    try:
        results = run(options)
    except (ConfigError, EnvError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:  # it has said why
        return error.returncode
    except KeyboardInterrupt:
        return 130
    first, *others = results
    others = [figures | {"ratios": ratios(figures, first)} for figures in others]
    print(json.dumps(first | {"variants": others}) if options.json else table(results))
    return 0


def parse(arguments=None):
    """The options of a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dreamer.benchmark",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help=f"a file in configs/, with or without .yml, or a path ({DEFAULT})")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any key of the configuration, dotted")
    parser.add_argument("--variant", action="append", metavar="ARGUMENTS", help="what differs in another measurement")
    parser.add_argument("--only", type=_measurements, metavar="NAME,…", help=f"of {', '.join(MEASUREMENTS)} (all)")
    parser.add_argument("--updates", type=positive, help="how many to time in a round (as many as seem enough)")
    parser.add_argument("--rounds", type=positive, default=1, help="each goes through all variants in turn (1)")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:<number>: short for operation.device=…")
    parser.add_argument("--json", action="store_true", help="the result as JSON, and nothing else")
    options = parser.parse_intermixed_args(arguments)
    if options.device:
        options.overrides.append(f"operation.device={options.device}")
    if not (options.config or options.overrides or options.variant or options.only):
        options.variant = VARIANTS
    options.config, options.variant = options.config or DEFAULT, options.variant or []
    return options


def _measurements(text):
    names = text.split(",")
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    return names


def run(options):
    """The figures of the configuration and of each variant, medians over the rounds.

    Raises ConfigError, EnvError, or CalledProcessError if a process of their own failed.
    """
    if not options.variant and options.rounds == 1:
        figures = measure(options.config, options.overrides, options.only or MEASUREMENTS, options.updates)
        return [complete({"variant": options.config, **figures})]
    measured = {label: (command, []) for label, command in commands(options).items()}
    for number in range(options.rounds):
        for label, (command, rounds) in measured.items():
            print(f"round {number + 1} of {options.rounds}: {label}", file=sys.stderr)
            rounds.append(measure_apart(command))
    return [complete(medians(rounds) | {"variant": label}) for label, (_, rounds) in measured.items()]


def commands(options):
    """{label: arguments for this program} of the configuration and its variants. Raises ConfigError if any is wrong."""
    own = [f"--config={options.config}", *options.overrides]
    own += [f"--only={','.join(options.only)}"] if options.only else []
    own += [f"--updates={options.updates}"] if options.updates else []
    found = {options.config: own} | {text: [*own, *shlex.split(text)] for text in options.variant}
    for command in found.values():
        load_config(parse(command).config, parse(command).overrides)
    return found


def measure_apart(command):
    """The figures that a command makes in a process of its own, which starts afresh."""
    process = [sys.executable, "-m", "dreamer.benchmark", *command, "--json"]
    return json.loads(subprocess.run(process, check=True, stdout=subprocess.PIPE).stdout)


if __name__ == "__main__":
    sys.exit(main())
