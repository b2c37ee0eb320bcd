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

SIDE = 256  # pixels of a panel
HEAD, CURVES, GAP = 24, 96, 8  # heights in pixels: above the panels, of the curves below them, between all
MOST_CURVES = 8  # components of an observation that are drawn
REAL, DREAMT, GRID, INK = (42, 111, 219), (217, 98, 13), (225, 225, 225), (40, 40, 40)


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
    nothing = np.full_like(views[0].dream.states[0], nan)
    kinds = "surprise", "entropy"
    real = {f"real_{kind}": [getattr(moment, kind) if moment else nan for moment in moments] for kind in kinds}
    return {
        "number": np.array([view.number for view in views]),
        "dreaming": np.array([view.dreaming for view in views]),
        "real_state": np.stack([moment.state if moment else nothing for moment in moments]),
        "real_reward": np.array([moment.arrival.reward if moment else nan for moment in moments]),
        **{name: np.array(part) for name, part in real.items()},
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
    return np.stack([_frame(view, rewards, vectors, place) for place, view in enumerate(views)])


def _rewards(view: View) -> tuple[float, float]:
    return (view.moment.arrival.reward if view.moment else math.nan), float(view.dream.rewards[0])


def _vectors(view: View) -> np.ndarray:
    """Return the first numbers of an observation, real and dreamt, (K, 2)."""
    if view.dream.vectors is None:
        return np.zeros((0, 2))
    dreamt = view.dream.vectors[0, :MOST_CURVES]
    real = view.moment.arrival.vector if view.moment else None
    return np.stack([np.full_like(dreamt, math.nan) if real is None else real[:MOST_CURVES], dreamt], axis=-1)


def _frame(view: View, rewards: np.ndarray, vectors: np.ndarray, place: int) -> np.ndarray:
    """Return the frame of one view. rewards: (T, 2), the real and the predicted ones. vectors: (K, T, 2), likewise."""
    canvas = Image.new("RGB", (2 * SIDE + 3 * GAP, HEAD + SIDE + CURVES + 2 * GAP), "white")
    draw = ImageDraw.Draw(canvas)
    right = GAP + SIDE + GAP
    for left, label, colour in (
        (GAP, "reality", REAL),
        (right, "dream" if view.dreaming else "what the agent sees", DREAMT),
    ):
        draw.text((left, 5), label, fill=colour, font_size=13)
    for left, picture in ((GAP, _left(view)), (right, _right(view))):
        if picture is not None:
            canvas.paste(_fitted(picture), (left, HEAD))
    if view.dream.frames is None:
        tall = SIDE / max(len(vectors), 1)
        for row, numbers in enumerate(vectors):
            _draw(draw, numbers, place, (right, HEAD + row * tall, SIDE, tall - 4))
    top = HEAD + SIDE + GAP
    draw.text((GAP, top), "reward", fill=INK, font_size=13)
    _draw(draw, rewards, place, (GAP, top + 18, 2 * SIDE + GAP, CURVES - 20))
    return np.asarray(canvas)


def _draw(draw: ImageDraw.ImageDraw, numbers: np.ndarray, place: int, box: tuple[float, float, float, float]) -> None:
    """Draw two curves (T, 2) up to a place, in a box of (left, top, width, height)."""
    left, top, width, height = box
    draw.rectangle((left, top, left + width, top + height), outline=GRID)
    low, high = np.nanmin(numbers), np.nanmax(numbers)
    x = left + np.arange(place + 1) * width / max(len(numbers) - 1, 1)
    y = top + height * (1 - (numbers[: place + 1] - low) / max(high - low, 1e-9))
    for column, colour in enumerate((REAL, DREAMT)):
        points = [(float(a), float(b)) for a, b in zip(x, y[:, column], strict=True) if math.isfinite(b)]
        draw.line(points, fill=colour, width=2)


def _left(view: View) -> np.ndarray | None:
    return view.moment.arrival.picture if view.moment else None


def _right(view: View) -> np.ndarray | None:
    """Return the dream's picture, or a grid of several dreams' pictures."""
    if view.dream.frames is None:
        return None
    frames = rgb(view.dream.frames)
    side = math.isqrt(len(frames))
    rows = frames[: side * side].reshape(side, side, *frames.shape[1:])
    return np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)


def _fitted(picture: np.ndarray) -> Image.Image:
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BILINEAR
    return Image.fromarray(np.ascontiguousarray(picture)).resize(size, method)
