import io
from itertools import pairwise

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image

from dreamer.training.video import (
    GAP,
    GIF_FRAMES,
    LEFT,
    TOP,
    VIDEO_FORMATS,
    encode_gif,
    film_strip,
    panel_frames,
    prediction_frames,
    write_picture,
    write_video,
)

SEQUENCES, LENGTH, HEIGHT, WIDTH = 2, 5, 16, 24
SHAPE = (SEQUENCES, LENGTH, 3, HEIGHT, WIDTH)


def cell(frame, row, column):
    top, left = TOP + row * (HEIGHT + GAP), LEFT + column * (WIDTH + GAP)
    return frame[top : top + HEIGHT, left : left + WIDTH]


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, SHAPE, dtype=np.uint8) for _ in range(2)]


def test_prediction_frames_show_truth_and_prediction_in_rows(images):
    truth, prediction = images
    frames = prediction_frames(truth, prediction, context=2)
    assert len(frames) == LENGTH and frames.dtype == np.uint8 and frames.shape[3] == 3
    assert frames.shape[1] >= 3 * HEIGHT and frames.shape[2] >= SEQUENCES * WIDTH
    for t in range(LENGTH):
        for k in range(SEQUENCES):
            np.testing.assert_array_equal(cell(frames[t], 0, k), truth[k, t].transpose(1, 2, 0))
            np.testing.assert_array_equal(cell(frames[t], 1, k), prediction[k, t].transpose(1, 2, 0))


@pytest.mark.parametrize("truth, prediction, error", [(80, 80, 127), (0, 255, 255), (255, 0, 0), (100, 120, 137)])
def test_zero_error_is_shown_as_grey(truth, prediction, error):
    frames = prediction_frames(np.full(SHAPE, truth, np.uint8), np.full(SHAPE, prediction, np.uint8), context=2)
    assert (cell(frames[3], 2, 1) == error).all()


def test_title_names_the_step_and_whether_it_is_context(images):
    titles = [frame[:TOP] for frame in prediction_frames(*images, context=2)]
    titles_with_longer_context = [frame[:TOP] for frame in prediction_frames(*images, context=3)]
    assert [np.array_equal(*pair) for pair in zip(titles, titles_with_longer_context, strict=True)] == [
        True,
        True,
        False,
        True,
        True,
    ]
    assert all((title != titles[0]).any() for title in titles[1:])


def test_gif_is_an_endless_animation():
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (3, HEIGHT, WIDTH, 3)).copy()
    with Image.open(io.BytesIO(encode_gif(frames, frames_per_second=10))) as image:
        assert (image.format, image.n_frames, image.size) == ("GIF", 3, (WIDTH, HEIGHT))
        assert (image.info["loop"], image.info["duration"]) == (0, 100)
        for t, frame in enumerate(frames):
            image.seek(t)
            np.testing.assert_allclose(np.asarray(image.convert("RGB")), frame, atol=8)


def test_panel_frames_show_enlarged_panels_side_by_side_with_labels(images):
    first, second = (film[0].transpose(0, 2, 3, 1) for film in images)
    captions = [f"t = {t}" for t in range(LENGTH)]
    frames = panel_frames({"what came": first, "what was expected": second}, captions, scale=3)
    height, width = 3 * HEIGHT, 3 * WIDTH
    assert frames.shape == (LENGTH, TOP + height + TOP, 2 * width + GAP, 3) and frames.dtype == np.uint8
    for frame, *panels in zip(frames, first, second, strict=True):
        for column, panel in enumerate(panels):
            left = column * (width + GAP)
            shown = frame[TOP:-TOP, left : left + width]
            np.testing.assert_array_equal(shown, panel.repeat(3, 0).repeat(3, 1))
            assert (frame[:TOP, left : left + width] < 128).any(), "a label"
        assert (frame[TOP:, width : width + GAP] == 255).all()
    assert (frames[:, :TOP] == frames[:1, :TOP]).all()
    assert all((one[-TOP:] < 128).any() and (one[-TOP:] != other[-TOP:]).any() for one, other in pairwise(frames))


def test_panels_of_different_lengths_are_refused(images):
    film = images[0][0].transpose(0, 2, 3, 1)
    with pytest.raises(ValueError):
        panel_frames({"a": film, "b": film[:-1]}, LENGTH * [""])


def test_film_strip_shows_the_steps_of_each_film_in_a_row(images):
    films = {name: truth[0].transpose(0, 2, 3, 1) for name, truth in zip(("first", "second film"), images, strict=True)}
    strip, steps = film_strip(films, steps=(0, 3, 4, 9), scale=2), (0, 3, 4)  # there is no step 9
    height, width, top = 2 * HEIGHT, 2 * WIDTH, 2 * TOP
    left = strip.shape[1] - len(steps) * (width + GAP)
    assert strip.dtype == np.uint8 and strip.shape[0] == top + 2 * (height + GAP) and left > 20
    for row, film in enumerate(films.values()):
        for column, step in enumerate(steps):
            shown = strip[top + row * (height + GAP) :, left + column * (width + GAP) :][:height, :width]
            np.testing.assert_array_equal(shown, film[step].repeat(2, 0).repeat(2, 1))
            assert (strip[:top, left + column * (width + GAP) :][:, :width] < 128).any(), "the step's number"
        assert (strip[top + row * (height + GAP) :, :left][:height] < 128).any(), "its label"
    longer = film_strip({"a much longer label": films["first"]}, steps=(0,))
    assert longer.shape[1] > film_strip({"short": films["first"]}, steps=(0,)).shape[1]


def test_write_picture_writes_the_pixels(images, tmp_path):
    picture = images[0][0, 0].transpose(1, 2, 0)
    write_picture(tmp_path / "strip.png", picture)
    np.testing.assert_array_equal(imageio.imread(tmp_path / "strip.png"), picture)


@pytest.mark.parametrize("suffix", [*VIDEO_FORMATS, ".MP4", ".Gif"])
def test_write_video_keeps_all_frames_in_order(suffix, tmp_path):
    """A white bar moves to the right from frame to frame."""
    frames = np.zeros((6, 32, 48, 3), np.uint8)
    for t, frame in enumerate(frames):
        frame[:, 8 * t : 8 * t + 8] = 255
    write_video(str(tmp_path / f"film{suffix}"), frames, frames_per_second=30)
    read = imageio.mimread(tmp_path / f"film{suffix}")
    assert len(read) == 6 and all(frame.shape[:2] == (32, 48) for frame in read)
    assert [np.asarray(frame)[..., :3].sum((0, 2)).argmax() // 8 for frame in read] == list(range(6))


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_write_video_keeps_the_frame_rate(suffix, tmp_path):
    path = tmp_path / f"film{suffix}"
    write_video(path, np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8), frames_per_second=20)
    with imageio.get_reader(path) as reader:
        data = reader.get_meta_data()
    assert data["duration"] == pytest.approx(1.0 if suffix == ".mp4" else 1000 / 20)


def test_gif_of_a_long_episode_is_thinned_out_and_keeps_its_duration(tmp_path):
    """1,000 noisy frames would take 60 MB with all frames and colours."""
    noise, place = np.random.default_rng(0), np.zeros((1000, 206, 580, 3), np.uint8)
    for t, frame in enumerate(place):
        frame[:, t // 2 : t // 2 + 80] = noise.integers(100, 140, (206, 80, 3))
    write_video(tmp_path / "film.gif", place, frames_per_second=30)
    assert (tmp_path / "film.gif").stat().st_size < 5e6
    with Image.open(tmp_path / "film.gif") as image:
        assert 80 < image.n_frames <= GIF_FRAMES
        assert image.n_frames * image.info["duration"] == pytest.approx(1000 / 0.03, rel=0.02)


def test_odd_frame_sizes_are_padded(tmp_path):
    write_video(tmp_path / "film.mp4", np.zeros((3, 33, 47, 3), np.uint8), frames_per_second=30)
    assert {frame.shape for frame in imageio.mimread(tmp_path / "film.mp4")} == {(34, 48, 3)}
