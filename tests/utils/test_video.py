import io

import numpy as np
import pytest
from PIL import Image

from dreamer.utils.video import GAP, LEFT, TOP, encode_gif, prediction_frames

SEQUENCES, LENGTH, HEIGHT, WIDTH = 2, 5, 16, 24
SHAPE = (SEQUENCES, LENGTH, 3, HEIGHT, WIDTH)


def cell(frame, row, column):
    top, left = TOP + row * (HEIGHT + GAP), LEFT + column * (WIDTH + GAP)
    return frame[top : top + HEIGHT, left : left + WIDTH]


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, SHAPE, dtype=np.uint8) for _ in range(2)]


def test_rows_show_truth_and_model(images):
    truth, prediction = images
    frames = prediction_frames(truth, prediction, context=2)
    assert len(frames) == LENGTH and frames.dtype == np.uint8 and frames.shape[3] == 3
    assert frames.shape[1] >= 3 * HEIGHT and frames.shape[2] >= SEQUENCES * WIDTH
    for t in range(LENGTH):
        for k in range(SEQUENCES):
            np.testing.assert_array_equal(cell(frames[t], 0, k), truth[k, t].transpose(1, 2, 0))
            np.testing.assert_array_equal(cell(frames[t], 1, k), prediction[k, t].transpose(1, 2, 0))


@pytest.mark.parametrize("truth, prediction, error", [(80, 80, 127), (0, 255, 255), (255, 0, 0), (100, 120, 137)])
def test_error_is_grey_where_there_is_none(truth, prediction, error):
    frames = prediction_frames(np.full(SHAPE, truth, np.uint8), np.full(SHAPE, prediction, np.uint8), context=2)
    assert (cell(frames[3], 2, 1) == error).all()


def test_the_title_tells_the_step_and_the_phase(images):
    titles = [frame[:TOP] for frame in prediction_frames(*images, context=2)]
    others = [frame[:TOP] for frame in prediction_frames(*images, context=3)]
    assert [np.array_equal(*pair) for pair in zip(titles, others, strict=True)] == [True, True, False, True, True]
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
