"""Evaluate an agent: return its returns, and film an episode and the model's predictions."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map
from tqdm import tqdm

from dreamer.algorithms.prediction import CONTEXT, image_of, open_loop_prediction, reconstruction
from dreamer.config.load import Config, load_config
from dreamer.errors import ConfigError
from dreamer.exported import NETWORKS, find_exported, read_exported
from dreamer.modules.loading import check_weights, load_weights
from dreamer.modules.world_model import WorldModel
from dreamer.replay.step import STEP_FIELDS, Batch, Step
from dreamer.training.agent_parts import Weights
from dreamer.training.checkpoint_file import NEWEST, load_chosen
from dreamer.training.device import select_device, tune
from dreamer.training.evaluation import Evaluator, build_evaluator
from dreamer.training.film import FRAMES, frames_per_second
from dreamer.training.metrics import achievement_curves
from dreamer.training.run_folder import CONFIGURATION, find_run
from dreamer.training.seeding import seed_everything
from dreamer.training.video import (
    GIF,
    STRIP_FORMAT,
    VIDEO_FORMATS,
    film_strip,
    panel_frames,
    to_rgb,
    write_picture,
    write_video,
)


def find_agent(name: str) -> Path:
    """Find an agent, and return the file of an exported one or the folder of a run. Raises ConfigError or ExportError.

    name: a path, "latest" for the run that started last, hf://user/name, or an agent that comes with this program.
    """
    return find_exported(name) or find_run(name)


def evaluate(
    source: Path, episodes: int, device: str, video: str | None = None, checkpoint: str = NEWEST
) -> dict[str, Any]:
    """Play episodes as an evaluation during training does, from the run's evaluation seed on, and return the result.

    source: the folder of a run, or an exported agent. video: a file for a film of the first episode, or for stills of
    its beginning. checkpoint: of a run: "newest", "best" or an iteration. The result is for `report`. Raises
    ConfigError, CheckpointError, ExportError or EnvError.
    """
    if video:
        check_video_path(video)
    exported = None if source.is_dir() else read_exported(source)
    if exported and checkpoint != NEWEST:
        raise ConfigError(f"--checkpoint {checkpoint}: {source} is an exported agent, which has only one")
    if exported:
        config, weights = exported.config, exported.weights
        iteration, env_steps = exported.info.iteration, exported.info.env_steps
    else:
        config = load_config(source / CONFIGURATION)
        weights, iteration, env_steps = read_weights(source, checkpoint)
    build = partial(build_evaluator, renders=bool(video))
    with prepared_evaluator(config, weights, select_device(device), str(source), build) as evaluator:
        with progress_bar(episodes) as bar:
            recorder = Recorder(evaluator.env, bool(video), bar)
            returns = evaluator.returns(iteration, episodes, recorder)
            if video:
                bar.set_description("drawing the film")
                panels = film(evaluator.model, recorder.steps, np.stack(recorder.frames))
                write_film(video, panels, captions(recorder.steps), frames_per_second(evaluator.env))
        if video:
            print(f"written: {video}", file=sys.stderr)
    return {"run": str(source), "iteration": iteration, "env_steps": env_steps, **summary(returns, recorder)}


def read_weights(folder: Path, checkpoint: str) -> tuple[Weights, int, int]:
    """Return (weights that an exported agent needs, iteration, env steps) of a run's checkpoint.

    Raises CheckpointError.
    """
    weights, env_steps = {}, 0

    def read_state(state: dict[str, Any]) -> None:
        nonlocal weights, env_steps
        networks, env_steps = state["algorithm"]["networks"], state["trainer"]["env_steps"]
        weights = {name: dict(networks[name]) for name in NETWORKS if name in networks}

    iteration = load_chosen(folder, checkpoint, read_state)
    return weights, iteration, env_steps


@contextmanager
def prepared_evaluator(
    config: Config,
    weights: Weights,
    device: torch.device,
    name: str,
    build: Callable[[Config, torch.device], Evaluator] = build_evaluator,
) -> Iterator[Evaluator]:
    """Yield an `Evaluator` with these weights, in a process with the settings of training, and close it.

    name: the agent's, for errors about the weights. build: makes the evaluator. Raises ConfigError, EnvError or
    NotFiniteError.
    """
    seed_everything(config.operation.seed)
    tune(config, device)
    with closing(build(config, device)) as evaluator:
        load_weights(evaluator.networks, weights, name)
        check_weights(evaluator.networks, name)
        yield evaluator


def progress_bar(episodes: int) -> tqdm:
    """Return the progress bar of an evaluation, shown only in a terminal."""
    return tqdm(total=episodes, desc="playing", unit=" episodes", leave=False, delay=0.5, miniters=0, disable=None)


class Recorder:
    """Watches an evaluation: moves the progress bar and, if `films` is True, keeps the first FRAMES steps and frames of
    the first episode."""

    def __init__(self, env: Any, films: bool, bar: tqdm) -> None:
        self.env, self.films, self.bar = env, films, bar
        self.steps: list[Step] = []
        self.frames: list[np.ndarray] = []
        self.count = 0
        self.successes: dict[int, float] = {}  # by episode
        self.achievements: dict[int, dict[str, bool]] = {}  # by episode, where the environment has some

    def __call__(self, episode: int, step: Step) -> None:
        self.successes[episode] = float(step.success)
        if hasattr(self.env, "achievements"):
            self.achievements[episode] = self.env.achievements
        self.count = 0 if step.is_first else self.count + 1
        self.bar.set_postfix_str(f"step {self.count}", refresh=False)
        self.bar.update(episode - self.bar.n)
        if self.films and episode == 0 and len(self.frames) < FRAMES:
            self.steps.append(step)
            image = image_of(step.observation)
            # The environment may render into the same array again.
            self.frames.append(self.env.render().copy() if image is None else to_rgb(image))


def summary(returns: Sequence[float], recorder: Recorder) -> dict[str, Any]:
    """Return the figures of an evaluation: returns, and success and achievements if the environment reports them."""
    figures = {"returns": returns, "mean": float(np.mean(returns)), "std": float(np.std(returns))}
    successes = list(recorder.successes.values())
    if not np.isnan(successes).any():
        figures["success"] = float(np.mean(successes))
    return figures | achievement_curves("eval", list(recorder.achievements.values()))


def captions(steps: Sequence[Step]) -> list[str]:
    """Return the line below each frame of an episode: step, reward and return so far."""
    returns = np.cumsum([step.reward for step in steps])
    lines = []
    for t, (step, return_so_far) in enumerate(zip(steps, returns, strict=True)):
        lines.append(f"t = {t}   reward {step.reward:.2f}   return {return_so_far:.1f}")
    return lines


def check_video_path(path: str) -> None:
    """Raise ConfigError for a file that cannot be written or has no known suffix, before anything is played."""
    formats = (*VIDEO_FORMATS, STRIP_FORMAT)
    if Path(path).suffix.lower() not in formats:
        raise ConfigError(f"--video {path}: the name must end with one of {', '.join(formats)}")
    is_new = not os.path.lexists(path)
    try:
        open(path, "ab").close()
        if is_new:
            os.unlink(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--video {path}: it cannot be written ({getattr(error, 'strerror', error)})") from None


def film(model: WorldModel, steps: Sequence[Step], frames: np.ndarray) -> dict[str, np.ndarray]:
    """Return films to show side by side, {label: uint8 (T, height, width, 3)}.

    If the model sees an image: the image, its reconstruction, and the model's prediction from the first CONTEXT frames
    and the real actions. Else: the rendered episode.
    """
    if image_of(steps[0].observation) is None:
        return {"episode": frames}
    batch = as_batch(steps, next(model.parameters()).device)
    truth, imagined, _ = open_loop_prediction(model, batch)
    panels = {
        "what the model sees": truth,
        "reconstructed": reconstruction(model, batch),
        f"imagined from {CONTEXT} frames": imagined,
    }
    return {label: to_rgb(images[0].cpu().numpy()) for label, images in panels.items()}


def as_batch(steps: Sequence[Step], device: torch.device) -> Batch:
    """Return T steps as a `Batch` of one window."""
    parts_of_steps = [{name: getattr(step, name) for name in STEP_FIELDS} for step in steps]
    window = tree_map(lambda *parts: torch.as_tensor(np.stack(parts)[None], device=device), *parts_of_steps)
    return Batch(window.pop("observation"), **{name: part.float() for name, part in window.items()})


def write_film(path: str, panels: Mapping[str, np.ndarray], captions: Sequence[str], frames_per_second: float) -> None:
    """Write films as a video, side by side above their captions, or as a strip of stills, one below the other."""
    suffix = Path(path).suffix.lower()
    height = next(iter(panels.values())).shape[1]
    if suffix == STRIP_FORMAT:
        write_picture(path, film_strip(panels, scale=max(1, round(128 / height))))
    else:
        scale = max(1, math.ceil((192 if suffix == GIF else 256) / height))
        write_video(path, panel_frames(panels, captions, scale), frames_per_second)


def report(result: Mapping[str, Any], as_json: bool) -> str:
    """Return the result of `evaluate` as text, or as JSON."""
    if as_json:
        return json.dumps(result)
    returns = ", ".join(f"{episode_return:.1f}" for episode_return in result["returns"])
    success = f", success {result['success']:.2f}" if "success" in result else ""
    score = f", score {result['eval/score']:.1f}%" if "eval/score" in result else ""
    return (
        f"{result['run']}, iteration {result['iteration']}, {result['env_steps']} env steps\n"
        f"return {result['mean']:.1f}, standard deviation {result['std']:.1f}{success}{score} "
        f"over {len(result['returns'])} episodes: {returns}"
    )
