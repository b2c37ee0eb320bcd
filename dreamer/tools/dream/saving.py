"""Write a session to a file: a film as GIF or MP4, the latent trajectory as npz."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw

from dreamer.tools.dream.reality import rgb
from dreamer.tools.dream.session import Session, View
from dreamer.training.film import USUAL_RATE
from dreamer.training.video import small_gif, write_video

PANEL_SIZE = 256  # pixels of a panel
HEADER_HEIGHT, CURVES_HEIGHT = 24, 96  # pixels: above the panels, of the curves below them
GAP = 8  # pixels between all
MAX_CURVES = 8  # components of an observation that are drawn
REAL_COLOUR, DREAM_COLOUR, FRAME_COLOUR, TEXT_COLOUR = (42, 111, 219), (217, 98, 13), (225, 225, 225), (40, 40, 40)


def as_file(session: Session, kind: str) -> tuple[str, bytes]:
    """Return (name, content) of a file of a session's views. kind: gif, mp4 or npz."""
    views = list(session.views)
    name = f"dream.{kind}"
    if kind == "npz":
        content, arrays = io.BytesIO(), cast(Any, trajectory(views))
        np.savez_compressed(content, **arrays)
        return name, content.getvalue()
    frames = film(views)
    rate = (session.reality.frames_per_second if session.reality else USUAL_RATE) * session.speed
    if kind == "gif":
        return name, small_gif(frames, rate)
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        write_video(path, frames, rate)
        return name, path.read_bytes()


def trajectory(views: Sequence[View]) -> dict[str, np.ndarray]:
    """Return the views as arrays (T, ...). Without a reality, its numbers are NaN. Of several dreams, the first one is
    saved."""
    nan = math.nan
    moments = [view.moment for view in views]
    nan_state = np.full_like(views[0].dream.states[0], nan)
    return {
        "number": np.array([view.number for view in views]),
        "dreaming": np.array([view.dreaming for view in views]),
        "real_state": np.stack([moment.state if moment else nan_state for moment in moments]),
        "real_reward": np.array([moment.arrival.reward if moment else nan for moment in moments]),
        "real_surprise": np.array([moment.surprise if moment else nan for moment in moments]),
        "real_entropy": np.array([moment.entropy if moment else nan for moment in moments]),
        "dream_state": np.stack([view.dream.states[0] for view in views]),
        "dream_reward": np.array([view.dream.rewards[0] for view in views]),
        "dream_continue": np.array([view.dream.continues[0] for view in views]),
        "dream_entropy": np.array([view.entropies[0] for view in views]),
        "dream_value": np.array([nan if view.dream.values is None else view.dream.values[0] for view in views]),
    }


def film(views: Sequence[View]) -> np.ndarray:
    """Return a film, uint8 (T, height, width, 3): reality and dreams side by side, the rewards below."""
    rewards = np.array([_rewards(view) for view in views], dtype=float)
    vectors = np.stack([_vectors(view) for view in views], axis=1)
    return np.stack([_frame(view, rewards, vectors, index) for index, view in enumerate(views)])


def _rewards(view: View) -> tuple[float, float]:
    return (view.moment.arrival.reward if view.moment else math.nan), float(view.dream.rewards[0])


def _vectors(view: View) -> np.ndarray:
    """Return the first numbers of an observation, real and dreamt, (K, 2)."""
    if view.dream.vectors is None:
        return np.zeros((0, 2))
    dreamt = view.dream.vectors[0, :MAX_CURVES]
    real = np.full_like(dreamt, math.nan)
    if view.moment and view.moment.arrival.vector is not None:
        real = view.moment.arrival.vector[:MAX_CURVES]
    return np.stack([real, dreamt], axis=-1)


def _frame(view: View, rewards: np.ndarray, vectors: np.ndarray, index: int) -> np.ndarray:
    """Return the frame of one view. rewards: (T, 2), the real and the predicted ones. vectors: (K, T, 2), likewise."""
    width = 2 * PANEL_SIZE + 3 * GAP
    height = HEADER_HEIGHT + PANEL_SIZE + CURVES_HEIGHT + 2 * GAP
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    right = GAP + PANEL_SIZE + GAP
    draw.text((GAP, 5), "reality", fill=REAL_COLOUR, font_size=13)
    draw.text((right, 5), "dream" if view.dreaming else "what the agent sees", fill=DREAM_COLOUR, font_size=13)
    for left, picture in ((GAP, _reality_picture(view)), (right, _dream_picture(view))):
        if picture is not None:
            canvas.paste(_fit(picture), (left, HEADER_HEIGHT))
    if view.dream.frames is None:
        row_height = PANEL_SIZE / max(len(vectors), 1)
        for row, numbers in enumerate(vectors):
            top = HEADER_HEIGHT + row * row_height
            _draw_curves(draw, numbers, index, (right, top, PANEL_SIZE, row_height - 4))
    top = HEADER_HEIGHT + PANEL_SIZE + GAP
    draw.text((GAP, top), "reward", fill=TEXT_COLOUR, font_size=13)
    _draw_curves(draw, rewards, index, (GAP, top + 18, 2 * PANEL_SIZE + GAP, CURVES_HEIGHT - 20))
    return np.asarray(canvas)


def _draw_curves(
    draw: ImageDraw.ImageDraw, numbers: np.ndarray, index: int, box: tuple[float, float, float, float]
) -> None:
    """Draw two curves (T, 2) up to an index, in a box of (left, top, width, height)."""
    left, top, width, height = box
    draw.rectangle((left, top, left + width, top + height), outline=FRAME_COLOUR)
    low, high = np.nanmin(numbers), np.nanmax(numbers)
    x = left + np.arange(index + 1) * width / max(len(numbers) - 1, 1)
    y = top + height * (1 - (numbers[: index + 1] - low) / max(high - low, 1e-9))
    for column, colour in enumerate((REAL_COLOUR, DREAM_COLOUR)):
        is_known = np.isfinite(y[:, column])
        points = list(zip(x[is_known].tolist(), y[is_known, column].tolist(), strict=True))
        draw.line(points, fill=colour, width=2)


def _reality_picture(view: View) -> np.ndarray | None:
    return view.moment.arrival.picture if view.moment else None


def _dream_picture(view: View) -> np.ndarray | None:
    """Return the dream's picture, or a grid of several dreams' pictures."""
    if view.dream.frames is None:
        return None
    frames = rgb(view.dream.frames)
    grid_size = math.isqrt(len(frames))
    rows = frames[: grid_size * grid_size].reshape(grid_size, grid_size, *frames.shape[1:])
    return np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)


def _fit(picture: np.ndarray) -> Image.Image:
    """Return a picture that is resized to a panel, with its proportions."""
    height, width = picture.shape[:2]
    scale = PANEL_SIZE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BILINEAR
    return Image.fromarray(np.ascontiguousarray(picture)).resize(size, method)
