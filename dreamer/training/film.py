"""Make films of evaluations: choose their frames and their speed."""

import math
import sys
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from dreamer.algorithms.prediction import image_of, open_loop_prediction
from dreamer.config.load import Config
from dreamer.envs.rendering import select_backend
from dreamer.errors import EnvError, one_line
from dreamer.modules.world_model import WorldModel
from dreamer.replay.step import Batch, Step
from dreamer.training.video import prediction_frames, to_rgb

FRAMES = 1001  # at most: a Control Suite episode without action repeat; of an Atari game only the beginning
FILM_RATE = 15  # frames a second, at most, of a film in TensorBoard
USUAL_RATE = 15  # agent steps a second, if the environment does not define `frames_per_second`
SMALLEST, LARGEST = 256, 512  # pixels a side of a rendered frame


class EpisodeFilm:
    """Films the first episode of an evaluation, in the environment's real time.

    Each frame is the image that the agent observes or, if it observes none, the environment's rendering.
    """

    def __init__(self, env: Any, renders: bool) -> None:
        """renders: whether the environment can render."""
        self.env, self.renders = env, renders
        self.frames: list[np.ndarray] = []
        self.steps = 0
        rate = frames_per_second(env)
        self.every = math.ceil(rate / FILM_RATE)
        self.frames_per_second = rate / self.every

    def watch(self, episode: int, step: Step) -> None:
        """Add a frame at every `every`-th step of episode 0. Ignore later episodes."""
        if episode > 0 or len(self.frames) == FRAMES:
            return
        if self.steps % self.every == 0:
            image = image_of(step.observation)
            if image is not None:
                self.frames.append(to_rgb(image))
            elif self.renders:
                self.draw()
        self.steps += 1

    def draw(self) -> None:
        """Add a frame that the environment renders. If rendering fails, print why once and make no film."""
        try:
            self.frames.append(resized_for_film(self.env.render()))
        except Exception as error:  # a renderer may raise anything, and the evaluation can do without its film
            print_no_films(error)
            self.renders = False
            self.frames = []


def frames_per_second(env: Any) -> float:
    """Return the number of agent steps in a second of the environment's own time."""
    return getattr(env, "frames_per_second", None) or USUAL_RATE


def resized_for_film(frame: np.ndarray) -> np.ndarray:
    """Return a copy of a frame, uint8 (height, width, 3), enlarged to SMALLEST pixels a side or reduced to LARGEST."""
    height, width = frame.shape[:2]
    scale: float = max(1, math.ceil(SMALLEST / min(height, width)))
    if scale == 1:
        scale = min(1, LARGEST / max(height, width))
    if scale == 1:
        return frame.copy()  # the environment may draw into it again
    size = round(width * scale), round(height * scale)
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(frame).resize(size, method))


def prediction_film(model: WorldModel, batch: Batch) -> np.ndarray | None:
    """Return a film of open-loop predictions beside the truth, uint8 (T, height, width, 3).

    Return None if the agent observes no pixels, or if an episode ends in every window.
    """
    if image_of(batch.observation, axes=2) is None:
        return None
    truth, prediction, context = open_loop_prediction(model, batch)
    if not len(truth):
        return None
    return prediction_frames(truth.cpu().numpy(), prediction.cpu().numpy(), context)


def draws_films(config: Config) -> bool:
    """Return whether the environment must render a run's films. If MuJoCo cannot render, print why and return False.

    Call it before any environment is made, since dm_control chooses its rendering back end on import.
    """
    needs_rendering = config.operation.video_interval > 0 and not config.environment.from_pixels
    if needs_rendering and config.environment.benchmark == "dmc":
        try:
            select_backend()
        except EnvError as error:
            print_no_films(error)
            return False
    return needs_rendering


def print_no_films(error: Exception) -> None:
    """Print why there are no films."""
    text = one_line(error) if str(error) else type(error).__name__
    tqdm.write(f"no films    {text}", file=sys.stderr)
