"""Film the page of `dreamer dream` in a Chromium: `python experiments/film_dream.py ball-in-cup dream.gif`.

The agent plays; the right side dreams on by itself; then the page goes back to where that dream began, and has nine of
them. Further options are those of `dreamer dream`. Needs the extra `dream`, playwright, and a Chromium on this machine.
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreamer.tools.dream.session import KEPT_STEPS  # noqa: E402

UNFILMED_STEPS, AWAKE_STEPS, DREAM_STEPS = 6, 20, 28
FRAME_RATE, SIZE = 12.5, (800, 784)  # steps a second, pixels
FREQUENT_COLOURS, RARE_COLOURS = 40, 40  # colours: of large areas, and of what is small but differs
CHROMIUMS = "chromium", "chromium-browser", "google-chrome"


def main() -> None:
    """Start the program, film its page, and write the GIF."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", help="as for `dreamer dream`")
    parser.add_argument("file", type=Path, help="the film, .gif")
    options, others = parser.parse_known_args()
    command = [sys.executable, "-m", "dreamer", "dream", options.agent, "--no-browser", *others]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http\S+", program.stdout.readline())
        if address is None:
            sys.exit(2)
        frames = film_page(address.group())
    finally:
        program.terminate()
    options.file.write_bytes(gif(frames))
    print(f"written: {options.file}, {options.file.stat().st_size / 1e6:.1f} MB, {len(frames)} frames")


def film_page(address: str) -> np.ndarray:
    """Return the film, uint8 (T, height, width, 3), of the page at an address."""
    chromium = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 900, "height": 900}, color_scheme="light")
        page.goto(address)
        while shown_step(page) is None:
            time.sleep(0.1)
        page.keyboard.press(" ")
        film_steps(page, UNFILMED_STEPS)
        frames = film_steps(page, AWAKE_STEPS)
        page.keyboard.press("d")
        frames += film_steps(page, DREAM_STEPS)
        go_back(page, UNFILMED_STEPS + AWAKE_STEPS)
        page.keyboard.press("g")
        frames += film_steps(page, DREAM_STEPS)
        browser.close()
    return np.stack(frames)


def film_steps(page: Any, count: int) -> list[np.ndarray]:
    """Make `count` steps, and return a picture of each, uint8 (height, width, 3)."""
    pictures = []
    for _ in range(count):
        previous = shown_step(page)
        page.keyboard.press(".")
        while shown_step(page) == previous:
            time.sleep(0.01)
        page.evaluate("new Promise(requestAnimationFrame)")  # the curves are drawn in the next frame
        pictures.append(crop_to_film(page.screenshot()))
    return pictures


def go_back(page: Any, index: int) -> None:
    """Click on the strip where a step is, and pause."""
    box = page.locator("#strip").bounding_box()
    page.mouse.click(box["x"] + (index + 0.5) * box["width"] / KEPT_STEPS, box["y"] + 9)
    while page.inner_text("#play").startswith("Play"):
        time.sleep(0.01)
    page.keyboard.press(" ")
    page.mouse.move(0, 0)
    while not page.inner_text("#play").startswith("Play"):
        time.sleep(0.01)


def shown_step(page: Any) -> str | None:
    """Return the number of the step that the page shows."""
    match = re.search(r"step (\d+)", page.inner_text("#state"))
    return match and match[1]


def crop_to_film(screenshot: bytes) -> np.ndarray:
    """Return a screenshot as pixels of the film, without what is below it."""
    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    width, height = SIZE
    resized = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    return np.asarray(resized.crop((0, 0, width, height)))


def gif(frames: np.ndarray) -> bytes:
    """Return frames as an endless GIF. Curves are thin, so colours by area alone would leave out theirs."""
    sample_indices = np.linspace(0, len(frames) - 1, 5).astype(int)
    sample = Image.fromarray(np.concatenate(frames[sample_indices]))
    quantizers = (FREQUENT_COLOURS, Image.Quantize.MEDIANCUT), (RARE_COLOURS, Image.Quantize.MAXCOVERAGE)
    palette = Image.new("P", (1, 1))
    colours = []
    for count, method in quantizers:
        colours += sample.quantize(count, method).getpalette()[: 3 * count]
    palette.putpalette(colours)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    content = io.BytesIO()
    duration = round(1000 / FRAME_RATE)
    images[0].save(content, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    return content.getvalue()


if __name__ == "__main__":
    main()
