"""Print a run's messages: before it starts, and when it is complete."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dreamer import distributed
from dreamer.config.load import Config, flatten
from dreamer.training import program
from dreamer.training.device import describe_device
from dreamer.training.program import DIRECTORY, PYTHON, short_path
from dreamer.training.schedule import is_over

SOFTWARE = "llvmpipe", "softpipe", "swrast", "SwiftShader"  # renderers that use no GPU
KEYS = 12  # at most in a printed line
UPDATE = 6.8, 50 * 50  # seconds of an update on two CPU cores, and the agent steps in its batch: docs/performance.md


def introduce(
    folder: Path | str,
    device: torch.device,
    config: Config,
    networks: Mapping[str, nn.Module],
    iteration: int,
    env: Any,
    env_steps: int = 0,
) -> None:
    """Print the run's folder, the device, the rendering and the sizes of the networks.

    networks: by name. iteration, env_steps: what a resumed run has done already, 0 for a new one. env: the training
    environment.
    """
    rendering = describe_rendering(config, env)
    if device.type == "cpu" and config.environment.from_pixels and has_sizes_of_a_paper(config):
        print(f"no GPU      {what_it_takes(config)}")
    print(f"run folder  {folder}")
    print_progress(config.parameters.dreamer, iteration, env_steps)
    rank = f", rank 0 of {distributed.count()}" if distributed.count() > 1 else ""
    print(f"device      {describe_device(device)}{rank}")
    print(f"rendering   {rendering}")
    for line in env.description:
        print(line)
    sizes = {name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()}
    print("parameters  " + ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size))
    print_idle_environments(config, getattr(env, "num_envs", config.environment.num_envs))


def describe_rendering(config: Config, env: Any) -> str:
    """Return, as text, what renders the frames of a run."""
    environment = config.environment
    if not environment.from_pixels:
        drawn = "for films only" if config.operation.video_interval else "none"
        return f"{drawn}; observations come from the environment"
    if environment.benchmark != "dmc":
        return "by the environment"
    renderer = env.renderer()
    in_software = ", in software" if any(name in renderer for name in SOFTWARE) else ""
    return os.environ.get("MUJOCO_GL", "MuJoCo's default") + f", {renderer}{in_software}"


def has_sizes_of_a_paper(config: Config) -> bool:
    """Return whether the networks have the sizes with which the papers learn from pixels, or larger ones."""
    settings = config.parameters.dreamer
    return settings.encoder.depth >= 32 or settings.deterministic_size >= 512


def print_progress(settings: Config, iteration: int, env_steps: int) -> None:
    """Print how far a resumed run is; nothing for a new one. settings: `parameters.dreamer`."""
    if iteration >= settings.train_iterations:
        print(f"complete    after iteration {iteration}; {settings.train_iterations} were requested")
    elif is_over(iteration, env_steps, settings.train_iterations, settings.max_env_steps):
        print(f"complete    after {env_steps:,} env steps; {settings.max_env_steps:,} were requested")
    elif iteration:
        print(f"resuming    after iteration {iteration} of {settings.train_iterations}")


def print_idle_environments(config: Config, environments: int) -> None:
    """Print advice if an iteration has fewer episodes than environments, so that some environments stay idle."""
    episodes = config.parameters.dreamer.num_interaction_episodes
    if environments > episodes and config.parameters.dreamer.collect:
        advice = "Raise parameters.dreamer.num_interaction_episodes and collect_interval by the same factor to use all."
        print(f"Of {environments} environments, {episodes} collect in an iteration. {advice}")


def print_threads(device: torch.device, before: int | None) -> None:
    """Print a notice if a resumed run has another number of threads than `before`. None: it is not known."""
    now = torch.get_num_threads()
    if device.type == "cpu" and before not in (None, now):
        print(f"threads     {now}, before {before}: the last digits will differ; operation.threads={before} keeps them")


def print_compiling(now: bool, before: bool | None) -> None:
    """Print a notice if a resumed run compiles its updates now but did not before, or the reverse."""
    if before not in (None, now):
        print(f"compile     {now}, before {before}: the last digits will differ; operation.compile={before} keeps them")


def what_it_takes(config: Config) -> str:
    """Return, as text, how long updates at a paper's sizes take on a CPU, and which configuration suits a CPU."""
    settings = config.parameters.dreamer
    seconds, steps = UPDATE
    seconds *= settings.batch_size * settings.batch_length / steps
    if settings.train_ratio:  # the number of updates is not known
        duration = f"an update takes at least {seconds:.2g} s on two cores"
    else:
        updates = settings.train_iterations * settings.collect_interval
        hours = updates * seconds / 3600
        total = f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"
        duration = f"{updates:,} updates, of at least {seconds:.2g} s on two cores, take {total}"
    advice = "on a CPU, add quick-v3-pixels to the names after --config"
    if config.algorithm == "plan2explore":
        advice = f"for a CPU: {program.PROGRAM} --config quick-p2e-pendulum-swingup"
    return f"networks of this size need one: {duration}; {advice}"


def print_defaults(known: Mapping[str, object], config: Config) -> None:
    """Print the keys that the configuration of an older run lacks, and the default values that the run takes.

    known: the run's own configuration, {key: value}.
    """
    new = [f"{key}={value}" for key, value in flatten(config).items() if key not in known]
    if new and "base" not in known:
        more = f" and {len(new) - KEYS} more, now in its config.yml" if len(new) > KEYS else ""
        print(f"new keys    an older version started this run; it takes the defaults: {', '.join(new[:KEYS])}{more}")


def conclude(
    folder: Path,
    iterations: int,
    env_steps: int,
    average: float | None,
    max_env_steps: int | None = None,
    maker: str | None = None,
) -> None:
    """Print how far a complete run came, how to look at it and how to resume it.

    average: the last eval/return_ema20, None without evaluations. max_env_steps: of its configuration. maker: the name
    of the Python function that made its environment.
    """
    run = shlex.quote(short_path(folder, DIRECTORY))
    runs = shlex.quote(short_path(Path(folder).parent, DIRECTORY))
    evaluation = "" if average is None else f", eval/return_ema20 {average:.1f}"
    print(f"finished    {run}: iteration {iterations:,}, {env_steps:,} env steps{evaluation}")
    film = "" if maker else f"{program.PROGRAM} --evaluate {run} --video film.mp4; "
    print(f"look at it  {film}{PYTHON} -m tensorboard.main --logdir {runs}")
    longer = f"parameters.dreamer.train_iterations={2 * iterations}"
    if max_env_steps is not None and env_steps >= max_env_steps:
        longer = f"parameters.dreamer.max_env_steps={2 * max_env_steps}"
    command = program.resuming(short_path(folder, DIRECTORY), maker)
    print(f"resume      {command}{', with ' if maker else ' '}{longer}")
