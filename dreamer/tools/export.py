"""Run the commands `export`, `verify` and `push`: write an agent to one file, check it and share it."""

import math
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from dreamer.agent import Agent
from dreamer.config.load import CONFIGURATION, load_config
from dreamer.errors import ExportError
from dreamer.exported import FORMAT, SUFFIX, Exported, Info, Played, read_exported, write_exported
from dreamer.files import naming_errors
from dreamer.tools import hub
from dreamer.tools.argument_parser import Parser, checkpoint, device, positive
from dreamer.tools.card import card
from dreamer.tools.play import prepared_evaluator, progress_bar, read_weights
from dreamer.tools.torch_export import write_program
from dreamer.training.checkpoint_file import NEWEST
from dreamer.training.device import select_device
from dreamer.training.ending import exit_status
from dreamer.training.evaluation import Evaluator, build_filming_evaluator
from dreamer.training.film import EpisodeFilm
from dreamer.training.run_folder import VERSIONS, find_run
from dreamer.training.versions import read_versions, versions
from dreamer.training.video import small_gif

TOLERANCE = 1e-3  # of a return: processors differ in last digits, and an episode may multiply the difference


def export(arguments: Sequence[str] | None = None) -> int:
    """Export the agent of a run, as the command line says. Return the exit status."""
    parser = Parser(prog="dreamer export", description="Write the agent of a run to one file that others can use.")
    parser.add_argument("run", help="the folder of a run, or latest")
    parser.add_argument("file", type=zip_path, help=f"the file to write, *{SUFFIX}")
    add_export_options(parser)
    parser.add_argument("--torch-export", action="store_true", help="also write *.pt2, which torch alone can run")
    return exit_status(_export, parser.parse_args(arguments))


def verify(arguments: Sequence[str] | None = None) -> int:
    """Play the episodes on an agent's card again, as the command line says.

    Return the exit status: 0 if the returns are equal, 1 if they are not.
    """
    parser = Parser(prog="dreamer verify", description="Play the episodes on an agent's card again.")
    parser.add_argument("agent", help=f"a {SUFFIX} file, hf://user/name, or an agent that comes with the program")
    parser.add_argument("--episodes", type=positive, help="how many of them to play, from the first on (all)")
    options = parser.parse_args(arguments)
    results: list[bool] = []
    status = exit_status(lambda: results.append(verify_agent(options.agent, options.episodes)))
    return status or int(not all(results))


def push(arguments: Sequence[str] | None = None) -> int:
    """Upload an agent to the Hugging Face Hub, as the command line says. Return the exit status."""
    parser = Parser(prog="dreamer push", description="Upload an agent to the Hugging Face Hub (log in: hf auth login).")
    parser.add_argument("agent", help=f"a {SUFFIX} file, or a run to export: its folder, or latest")
    parser.add_argument("repository", help="user/name, made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    add_export_options(parser)
    return exit_status(_push, parser.parse_args(arguments))


def add_export_options(parser: Parser) -> None:
    """Add the options that choose the checkpoint to export and the episodes to play for the card."""
    parser.add_argument("--checkpoint", type=checkpoint, default=NEWEST, help="newest, best or an iteration (newest)")
    parser.add_argument("--episodes", type=positive, default=10, help="episodes to play for the card (10)")
    parser.add_argument("--device", type=device, default="cpu", help="to play on, for verify as well (cpu)")


def zip_path(text: str) -> Path:
    """Return the path of a .zip file to write, for argparse."""
    path = Path(text)
    if path.suffix != SUFFIX or not path.parent.is_dir():
        raise ArgumentTypeError(f"{text}: expected a name that ends with {SUFFIX}, in a folder that exists")
    return path


def _export(options: Namespace) -> None:
    exported = _export_run(options, options.run)
    write_exported(options.file, exported)
    print(f"written: {options.file}, {options.file.stat().st_size / 1e6:.1f} MB")
    if options.torch_export:
        path = options.file.with_suffix(".pt2")
        write_torch_export(path, exported)
        print(f"written: {path}, for torch {torch.__version__}")


def _push(options: Namespace) -> None:
    with TemporaryDirectory() as folder:
        path = Path(options.agent)
        if path.suffix != SUFFIX:
            path = Path(folder, hub.FILE)
            write_exported(path, _export_run(options, options.agent))
        address = hub.push(path, options.repository, options.private)
    print(f"uploaded: Agent.load({address!r})")


def _export_run(options: Namespace, run: str) -> Exported:
    """Return the agent of a run with the checkpoint and episodes that the options name. Print the returns."""
    exported = export_agent(find_run(run), options.episodes, options.checkpoint, options.device)
    print(describe_returns(exported.info.played.returns))
    return exported


def export_agent(folder: Path, episodes: int = 10, checkpoint: str = NEWEST, device: str = "cpu") -> Exported:
    """Play episodes with the agent of a run, and return the agent with a card about them.

    checkpoint: "newest", "best" or an iteration. device: to play on. Raises ConfigError, CheckpointError, ExportError
    or EnvError.
    """
    config = load_config(folder / CONFIGURATION, warns=False)
    weights, iteration, env_steps = read_weights(folder, checkpoint)
    selected = select_device(device)
    with prepared_evaluator(config, weights, selected, str(folder), build_filming_evaluator) as evaluator:
        spaces = evaluator.env.unwrapped_spaces.state_dict()
        if not spaces:
            raise ExportError(
                f"{folder}: spaces of this kind cannot be written to a file: {evaluator.env.unwrapped_spaces}"
            )
        film = EpisodeFilm(evaluator.env, evaluator.renders)
        returns = play(evaluator, iteration, episodes, film)
    trained_with = read_versions(folder / VERSIONS)
    info = Info(
        format=FORMAT,
        spaces=spaces,
        iteration=iteration,
        env_steps=env_steps,
        trained_with=trained_with[-1] if trained_with else {},
        exported_with=versions(),
        played=Played(seed=config.operation.seed, returns=returns, device=selected.type),
    )
    gif = small_gif(np.stack(film.frames), film.frames_per_second) if film.frames else None
    return Exported(config, info, weights, card(config, info, gif is not None), gif)


def write_torch_export(path: Path, exported: Exported) -> None:
    """Write an exported agent's policy as a `torch.export` program. Raises ConfigError, OSError."""
    agent = Agent(*exported.parts)
    environment = {"spaces": exported.info.spaces, "frame_skip": agent.frame_skip}
    with naming_errors(path):
        write_program(path, agent.model, agent.actor, agent.translation.observation_space, environment)


def play(evaluator: Evaluator, iteration: int, episodes: int, film: EpisodeFilm | None = None) -> list[float]:
    """Play episodes with a progress bar, and return their returns."""
    with progress_bar(episodes) as bar:

        def watch(episode: int, step: Any) -> None:
            bar.update(episode - bar.n)
            if film:
                film.watch(episode, step)

        return evaluator.returns(iteration, episodes, watch)


def verify_agent(where: str | Path, episodes: int | None = None) -> bool:
    """Play the episodes on an agent's card again, print the returns, and return whether they are equal.

    episodes: how many of them, from the first on; None: all. Raises ExportError, ConfigError or EnvError.
    """
    exported = read_exported(where)
    expected = exported.info.played.returns[:episodes]
    selected = select_device(exported.info.played.device)
    with prepared_evaluator(exported.config, exported.weights, selected, str(where)) as evaluator:
        returns = play(evaluator, exported.info.iteration, len(expected))
    pairs = zip(expected, returns, strict=True)
    are_equal = all(math.isclose(*pair, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for pair in pairs)
    print(f"on the card: {describe_returns(expected)}\nplayed here: {describe_returns(returns)}")
    if returns == expected:
        print("equal in every digit")
    elif are_equal:
        print(f"equal to {TOLERANCE:.1%}")
    else:
        print(f"not equal; {describe_version_changes(exported.info.exported_with)}")
    return are_equal


def describe_version_changes(exported_versions: dict[str, Any]) -> str:
    """Return text on the versions that differ between the export and this machine."""
    current_versions = versions()
    changes = []
    for name, exported_version in exported_versions.items():
        current_version = current_versions.get(name)
        if exported_version != current_version:
            changes.append(f"{name} {exported_version} there, {current_version} here")
    return "; ".join(changes) or "all versions are as in the export, so the processor may differ"


def describe_returns(returns: Sequence[float]) -> str:
    """Return returns as text: mean, standard deviation, and each."""
    each_return = ", ".join(f"{episode_return:.3f}" for episode_return in returns)
    return f"return {np.mean(returns):.1f} ± {np.std(returns):.1f} over {len(returns)} episodes: {each_return}"
