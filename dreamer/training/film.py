"""Films of what an evaluation plays: which frames they hold, and how fast they run."""

import math
import sys

import numpy as np
from PIL import Image
from tqdm import tqdm

from dreamer.algorithms.prediction import image_of
from dreamer.envs.rendering import select_backend
from dreamer.errors import EnvError, one_line
from dreamer.training.video import shown

FRAMES = 1001  # at most: an episode of the Control Suite without action repeat; of a game of Atari its beginning
MOST, USUAL = 15, 15  # frames a second: of a film in TensorBoard; where the environment does not say
SMALLEST, LARGEST = 256, 512  # pixels a side of what an environment renders


class EpisodeFilm:
    """Takes frames of the first episode of an evaluation, in the environment's real time: the image that the agent
    sees or, where it sees none that can be shown, what the environment renders."""

    def __init__(self, env, renders):
        """renders: whether the environment can."""
        self.env, self.renders, self.frames, self.steps = env, renders, [], 0
        rate = frames_per_second(env)
        self.every = math.ceil(rate / MOST)
        self.frames_per_second = rate / self.every

    def watch(self, episode, step):
        """Take note of a step; every `every`th of the first episode becomes a frame."""
        if episode > 0 or len(self.frames) == FRAMES:
            return
        if self.steps % self.every == 0:
            image = image_of(step.observation)
            if image is not None:
                self.frames.append(shown(image))
            elif self.renders:
                self.draw()
        self.steps += 1

    def draw(self):
        """Let the environment render. If it cannot, say so once and go on without a film."""
        try:
            self.frames.append(of_good_size(self.env.render()))
        except Exception as error:  # a renderer may raise anything; the evaluation is worth more than its film
            tell_no_films(error)
            self.renders, self.frames = False, []


def frames_per_second(env):
    """Return how many steps of an environment, action repeats taken as one, make a second of its own time."""
    return getattr(env, "frames_per_second", None) or USUAL


def of_good_size(frame):
    """Return a copy of a frame, uint8 (height, width, 3), enlarged or made smaller if its sides are far from good."""
    height, width = frame.shape[:2]
    scale = max(1, math.ceil(SMALLEST / min(height, width)))
    scale = min(scale, LARGEST / max(height, width)) if scale == 1 else scale
    if scale == 1:
        return frame.copy()  # the environment may draw into it again
    size, smooth = (round(width * scale), round(height * scale)), Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.NEAREST if scale > 1 else smooth))


def draws_films(config):
    """Return whether the environment is to render the films of a run. Where MuJoCo cannot, one line says so.

    To be called before any environment is made, since dm_control binds to its back end when it is imported.
    """
    wanted = config.operation.video_interval > 0 and not config.environment.from_pixels
    if wanted and config.environment.benchmark == "dmc":
        try:
            select_backend()
        except EnvError as error:
            tell_no_films(error)
            return False
    return wanted


def tell_no_films(error):
    text = one_line(error) if str(error) else type(error).__name__
    tqdm.write(f"no films    {text}", file=sys.stderr)
