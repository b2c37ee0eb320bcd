"""Animations for TensorBoard, and video files."""

import io
import math
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

LEFT, TOP, GAP = 48, 14, 2  # pixels
GIF = ".gif"
VIDEO_FORMATS = (".mp4", ".mkv", ".avi", GIF)
GIF_FRAMES, GIF_RATE, GIF_COLORS = 90, 50, 32  # at most
STRIP_FORMAT = ".png"
STRIP_STEPS = (0, *range(4, 50, 5))  # of an episode: as far as the paper's predictions reach


def shown(image):
    """(..., C, height, width), C being 1 or 3 → (..., height, width, 3), as films and pictures are."""
    image = np.moveaxis(image, -3, -1)
    return np.repeat(image, 3, -1) if image.shape[-1] == 1 else image


def prediction_frames(truth, prediction, context):
    """Truth, model and error, a labelled row each and a column for each sequence.

    truth, prediction: uint8 (K, T, C, height, width), C being 1 or 3; the first `context` frames were seen, the
    others imagined. Returns uint8 (T, height', width', 3). Grey in the error's row is none.
    """
    error = ((prediction.astype(int) - truth + 255) // 2).astype(np.uint8)
    rows = {"truth": truth, "model": prediction, "error": error}
    frames = []
    for t in range(truth.shape[1]):
        phase = "context" if t < context else "imagined"
        frames.append(_grid({label: row[:, t] for label, row in rows.items()}, f"t = {t}  {phase}"))
    return np.stack(frames)


def _grid(rows, title):
    """One frame: images (K, C, height, width) by row label, under a title."""
    columns, _, height, width = next(iter(rows.values())).shape
    size = (LEFT + columns * (width + GAP), TOP + len(rows) * (height + GAP))
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((LEFT, 1), title, fill="black")
    for i, (label, images) in enumerate(rows.items()):
        top = TOP + i * (height + GAP)
        draw.text((4, top + height // 2 - 6), label, fill="black")
        for j, image in enumerate(images):
            canvas.paste(Image.fromarray(shown(image)), (LEFT + j * (width + GAP), top))
    return np.asarray(canvas)


def encode_gif(frames, frames_per_second, colors=256):
    """uint8 (T, height, width, 3) → the bytes of an endless GIF, in the colours that suit five of its frames."""
    some = np.linspace(0, len(frames) - 1, 5).astype(int)
    palette = Image.fromarray(np.concatenate(frames[some])).quantize(colors)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    return _gif(images, frames_per_second)


def _gif(images, frames_per_second):
    file, (first, *others) = io.BytesIO(), images
    duration = 10 * round(100 / frames_per_second)  # milliseconds; the format knows hundredths of a second
    first.save(file, "GIF", save_all=True, append_images=others, duration=duration, loop=0)
    return file.getvalue()


def panel_frames(panels, captions, scale=4):
    """Films side by side, enlarged, each under its label: {label: uint8 (T, height, width, 3)} → the same form.

    captions: a line of text to stand below each of the T frames.
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


def film_strip(panels, steps=STRIP_STEPS, scale=2):
    """Stills of films, a labelled row each and a column for each of the steps that they have, enlarged.

    {label: uint8 (T, height, width, 3)} → uint8 (height', width', 3).
    """
    length, height, width, _ = next(iter(panels.values())).shape
    steps = [step for step in steps if step < length]
    height, width, size = height * scale, width * scale, TOP * scale - 4
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


def write_picture(path, picture):
    """uint8 (height, width, 3) → an image file of the kind that its name says."""
    Image.fromarray(picture).save(path)


def write_video(path, frames, frames_per_second):
    """uint8 (T, height, width, 3) → a file whose name ends with one of VIDEO_FORMATS. Raises OSError, in one line."""
    if Path(path).suffix.lower() == GIF:
        Path(path).write_bytes(small_gif(frames, frames_per_second))
        return
    try:
        imageio.mimwrite(path, list(frames), fps=frames_per_second, macro_block_size=2)
    except OSError as error:  # ffmpeg's says what it was called with, too
        reason = str(error).strip().splitlines()
        raise OSError(f"{path} cannot be written: {reason[-1]}") from None


def small_gif(frames, frames_per_second):
    """uint8 (T, height, width, 3) → the bytes of a GIF as long, of every n-th frame, so that they are at most
    GIF_FRAMES and no more a second than browsers show."""
    every = max(math.ceil(len(frames) / GIF_FRAMES), math.ceil(frames_per_second / GIF_RATE))
    return encode_gif(frames[::every], frames_per_second / every, GIF_COLORS)
