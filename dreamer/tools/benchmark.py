"""Measure how fast a configuration runs on this machine; docs/performance.md explains the figures."""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from dreamer.config.load import load_config
from dreamer.errors import ConfigError, EnvError
from dreamer.tools.argument_parser import Parser, positive, separate_overrides
from dreamer.tools.measurements import MEASUREMENTS, measure, medians

DEFAULT = "dmc-walker-walk"
SHARE_HINT = "good: above 50 % on a CPU, 20 % on a GPU; small networks reach a few %"
FIGURES = [  # key, name, unit, which value is good
    ("resident_gb", "memory", "GB", "the largest so far"),
    ("cuda_gb", "memory of the GPU", "GB", "the largest so far"),
    ("sampling_ms", "sampling a batch", "ms", "good: below a twentieth of an update"),
    ("rendering_fps", "environment alone", "agent steps/s", ""),
    ("collection_steps_per_second", "collecting", "agent steps/s", "good: above 80 % of the environment alone"),
    ("acting_ms", "an action", "ms", "good: less than a step of the environment"),
]
UNITS = {  # of the numbers that variants are compared by
    "update_seconds": "s an update",
    "fraction_of_peak": "of the peak",
    "resident_gb": "GB of memory",
    "cuda_gb": "GB of the GPU",
    "rendering_fps": "steps/s played",
    "collection_steps_per_second": "steps/s collected",
    "acting_ms": "ms an action",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and return the exit status: 0, 2 with one line for invalid input, 130 when interrupted."""
    options = parse(arguments)
    try:
        results = run(options)
    except (ConfigError, EnvError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:  # its process has printed the reason
        return error.returncode
    except KeyboardInterrupt:
        return 130
    base, *variants = results
    for row in variants:
        row["ratios"] = {name: row[name] / base[name] for name in UNITS if name in row and name in base}
    print(json.dumps(base | {"variants": variants}) if options.json else table(base, variants))
    return 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line. arguments: None for `sys.argv`."""
    parser = Parser("python -m dreamer benchmark", description=__doc__)
    parser.add_argument(
        "--config", nargs="+", help=f"files in configs/, with or without .yml, or paths, as for main.py ({DEFAULT})"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any key of the configuration, dotted")
    parser.add_argument(
        "--variant", type=variant, action="append", metavar="ARGUMENTS", help="measure with these arguments, too"
    )
    parser.add_argument("--only", metavar="NAME,…", help=f"of {', '.join(MEASUREMENTS)} (all)")
    parser.add_argument("--updates", type=positive, help="updates to time in a round (2 to 50, for about 20 seconds)")
    parser.add_argument("--rounds", type=positive, default=1, help="measurements of each variant, which take turns (1)")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:<number>: short for operation.device=…")
    parser.add_argument("--json", action="store_true", help="the result as JSON, and nothing else")
    options = parser.parse_intermixed_args(arguments)
    separate_overrides(options, arguments, "config")
    options.variant = options.variant or []
    options.config = options.config or [DEFAULT]
    if options.device:
        options.overrides.append(f"operation.device={options.device}")
    options.only = MEASUREMENTS if options.only is None else options.only.split(",")
    for name in set(options.only) - set(MEASUREMENTS):
        parser.error(f"argument --only: no {name!r}; there are {', '.join(MEASUREMENTS)}")
    return options


def variant(text: str) -> str:
    """Check the arguments of another measurement for argparse, and return them as they were given."""
    try:
        shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}: {text}") from None
    return text


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the figures of the configuration and of each variant, medians over the rounds.

    With variants or rounds, each measurement runs in a new process. Raises ConfigError or EnvError, or
    CalledProcessError if such a process fails.
    """
    if not options.variant and options.rounds == 1:
        figures = measure(options.config, options.overrides, options.only, options.updates)
        return [{"variant": " ".join(options.config), **figures}]
    base_arguments = [*options.overrides, "--config", *options.config, f"--only={','.join(options.only)}"]
    if options.updates:
        base_arguments.append(f"--updates={options.updates}")
    arguments_by_label = {" ".join(options.config): base_arguments}
    for variant_arguments in options.variant:
        arguments_by_label[variant_arguments] = [*base_arguments, *shlex.split(variant_arguments)]
    for arguments in arguments_by_label.values():  # so that an error ends the program before anything is measured
        load_config(parse(arguments).config, parse(arguments).overrides)
    figures_by_label: dict[str, list[dict[str, Any]]] = {label: [] for label in arguments_by_label}
    for number in range(options.rounds):
        for label, arguments in arguments_by_label.items():
            print(f"round {number + 1} of {options.rounds}: {label}", file=sys.stderr)
            command = [sys.executable, "-m", "dreamer", "benchmark", *arguments, "--json"]
            result = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            figures_by_label[label].append(json.loads(result.stdout))
    return [medians(figures) | {"variant": label} for label, figures in figures_by_label.items()]


def table(base: dict[str, Any], variants: Sequence[dict[str, Any]]) -> str:
    """Return the figures of `base` as lines: name, value with unit, and which value is good. Below them are the
    figures of the variants with their ratios to those of `base`."""
    lines = [f"{name:22}{value:26}{hint}".rstrip() for name, value, hint in figure_rows(base)]
    for row in variants:
        lines += ["", row["variant"]]
        lines += [f"  {row[name]:.4g} {UNITS[name]}, {ratio:.2f} of the first" for name, ratio in row["ratios"].items()]
    return "\n".join(lines)


def figure_rows(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (name, value with its unit, which value is good) of the figures that were measured."""
    machine = "; ".join(figures[key] for key in ("processor", "units", "caches") if figures[key])
    rows = [
        ("configuration", " ".join([figures["config"], *figures["overrides"]]), ""),
        ("machine", machine, ""),
        ("device", f"{figures['device']}; torch {figures['torch']}, {figures['precision']}", ""),
    ]
    if "update_seconds" in figures:
        rows += update_rows(figures)
    parts = figures.get("parts", {})
    if sum(parts.values()):  # 0 if the profiler has measured no part
        rows += [(f"  {part}", format_seconds(seconds), "") for part, seconds in parts.items()]
    for key, name, unit, hint in FIGURES:
        if key in figures:
            rows.append((name, f"{figures[key]:.3g} {unit}", hint))
    return rows


def update_rows(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows of `figure_rows` on the time of an update."""
    operations = f"{figures['update_operations']:,.0f} operations"
    flops = f"{figures['update_flops'] / 1e9:,.4g} GFLOP"
    operations = f"matrix products and convolutions; {figures['update_operations']:,.0f} operations"
    rows = [
        ("an update", format_seconds(figures["update_seconds"]), ""),
        ("  products in it", flops, operations),
    ]
    if "fraction_of_peak" in figures:
        peak = f"of {figures['matmul_gflops']:,.0f} GFLOP/s, which products of large matrices reach here"
        rows.append(("  share of the peak", f"{100 * figures['fraction_of_peak']:.2g} %", f"{peak}; {SHARE_HINT}"))
    return rows


def format_seconds(seconds: float) -> str:
    """Return a time as text, in milliseconds below one second."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
