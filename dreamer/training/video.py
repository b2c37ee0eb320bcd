"""Draw films, and encode them as GIFs for TensorBoard or as video files."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

LEFT, TOP, GAP = 48, 14, 2  # pixels
GIF = ".gif"
VIDEO_FORMATS = (".mp4", ".mkv", ".avi", GIF)
GIF_FRAMES, GIF_RATE, GIF_COLORS = 90, 50, 32  # at most
STRIP_FORMAT = ".png"
STRIP_STEPS = (0, *range(4, 50, 5))  # of an episode; the paper's predictions have 50 steps


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Return an image (..., C, height, width), where C is 1 or 3, as (..., height, width, 3), the form of films."""
    image = np.moveaxis(image, -3, -1)
    return np.repeat(image, 3, -1) if image.shape[-1] == 1 else image


def prediction_frames(truth: np.ndarray, prediction: np.ndarray, context: int) -> np.ndarray:
    """Return a film with a row each for truth, model and error, and a column for each sequence.

    truth, prediction: uint8 (K, T, C, height, width), where C is 1 or 3. The model has seen the first `context` frames
    and imagined the others. Returns uint8 (T, height', width', 3). Grey in the row of the error means no error.
    """
    error = ((prediction.astype(int) - truth + 255) // 2).astype(np.uint8)
    rows = {"truth": truth, "model": prediction, "error": error}
    frames = []
    for t in range(truth.shape[1]):
        kind = "context" if t < context else "imagined"
        frames.append(_grid({label: row[:, t] for label, row in rows.items()}, f"t = {t}  {kind}"))
    return np.stack(frames)


def _grid(rows: Mapping[str, np.ndarray], title: str) -> np.ndarray:
    """Return one frame: under a title, a row of images (K, C, height, width) for each label."""
    columns, _, height, width = next(iter(rows.values())).shape
    size = (LEFT + columns * (width + GAP), TOP + len(rows) * (height + GAP))
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((LEFT, 1), title, fill="black")
    for i, (label, images) in enumerate(rows.items()):
        top = TOP + i * (height + GAP)
        draw.text((4, top + height // 2 - 6), label, fill="black")
        for j, image in enumerate(images):
            canvas.paste(Image.fromarray(to_rgb(image)), (LEFT + j * (width + GAP), top))
    return np.asarray(canvas)


def encode_gif(frames: np.ndarray, frames_per_second: float, colors: int = 256) -> bytes:
    """Return frames, uint8 (T, height, width, 3), as an endless GIF. Its palette is chosen from five of its frames."""
    indices = np.linspace(0, len(frames) - 1, 5).astype(int)
    palette = Image.fromarray(np.concatenate(frames[indices])).quantize(colors)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    return _gif(images, frames_per_second)


def _gif(images: Sequence[Image.Image], frames_per_second: float) -> bytes:
    file = io.BytesIO()
    duration = 10 * round(100 / frames_per_second)  # milliseconds; a GIF counts hundredths of a second
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    return file.getvalue()


def panel_frames(panels: Mapping[str, np.ndarray], captions: Iterable[str], scale: int = 4) -> np.ndarray:
    """Return one film that shows several films side by side, enlarged, each under its label.

    panels: {label: uint8 (T, height, width, 3)}. captions: a line of text below each of the T frames.
    """
    frames = []
    for caption, *images in zip(captions, *panels.values(), strict=True):
        height, width = images[0].shape[0] * scale, images[0].shape[1] * scale
        canvas = Image.new("RGB", (len(images) * (width + GAP) - GAP, TOP + height + TOP), "white")
        draw = ImageDraw.Draw(canvas)
        for column, (label, image) in enumerate(zip(panels, images, strict=True)):
            left = column * (width + GAP)
            draw.text((left + 4, 1), label, fill="black")
            canvas.paste(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST), (left, TOP))
        draw.text((4, TOP + height + 1), caption, fill="black")
        frames.append(np.asarray(canvas))
    return np.stack(frames)


def film_strip(panels: Mapping[str, np.ndarray], steps: Sequence[int] = STRIP_STEPS, scale: int = 2) -> np.ndarray:
    """Return a picture of stills, enlarged: a labelled row for each film, a column for each of `steps` below T.

    panels: {label: uint8 (T, height, width, 3)}. Returns uint8 (height', width', 3).
    """
    length, height, width, _ = next(iter(panels.values())).shape
    steps = [step for step in steps if step < length]
    height, width = height * scale, width * scale
    size = TOP * scale - 4  # of the font
    left = 8 + max(round(ImageFont.load_default(size).getlength(label)) for label in panels)
    canvas = Image.new("RGB", (left + len(steps) * (width + GAP), TOP * scale + len(panels) * (height + GAP)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (label, images) in enumerate(panels.items()):
        top = TOP * scale + row * (height + GAP)
        draw.text((4, top + (height - size) // 2), label, fill="black", font_size=size)
        for column, step in enumerate(steps):
            x = left + column * (width + GAP)
            draw.text((x + 4, 1), f"t = {step}", fill="black", font_size=size)
            canvas.paste(Image.fromarray(images[step]).resize((width, height), Image.Resampling.NEAREST), (x, top))
    return np.asarray(canvas)


def write_picture(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture, uint8 (height, width, 3), in the format that the file's suffix names."""
    Image.fromarray(picture).save(path)


def write_video(path: str | Path, frames: np.ndarray, frames_per_second: float) -> None:
    """Write frames, uint8 (T, height, width, 3), to a file with a suffix of VIDEO_FORMATS. Raises OSError."""
    if Path(path).suffix.lower() == GIF:
        Path(path).write_bytes(small_gif(frames, frames_per_second))
        return
    try:
        imageio.mimwrite(path, list(frames), fps=frames_per_second, macro_block_size=2)
    except OSError as error:  # the last line is the reason; the lines before it are ffmpeg's command
        reason = str(error).strip().splitlines()
        raise OSError(f"{path} cannot be written: {reason[-1]}") from None


def small_gif(frames: np.ndarray, frames_per_second: float) -> bytes:
    """Return a GIF of every n-th frame of uint8 (T, height, width, 3), which takes as long as all frames.

    n is the smallest that leaves at most GIF_FRAMES frames, and GIF_RATE a second, which browsers can show.
    """
    every = max(math.ceil(len(frames) / GIF_FRAMES), math.ceil(frames_per_second / GIF_RATE))
    return encode_gif(frames[::every], frames_per_second / every, GIF_COLORS)
