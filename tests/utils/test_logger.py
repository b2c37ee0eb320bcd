import io
import re
from contextlib import closing

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dreamer.utils.logger import Logger, make_run_folder

CONFIGURATION = "operation:\n  seed: 3\n"


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def test_scalars_are_at_their_env_steps(tmp_path):
    with closing(Logger(tmp_path, CONFIGURATION)) as logger:
        logger.scalars({"train/loss": 1.5, "train/return": 2.0}, 1000)
        logger.scalars({"train/loss": 0.5}, 3000)
    events = read(tmp_path)
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/return"}
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1000, 1.5), (3000, 0.5)]
    assert [(event.step, event.value) for event in events.Scalars("train/return")] == [(1000, 2.0)]


def test_the_configuration_is_kept(tmp_path):
    with closing(Logger(tmp_path, CONFIGURATION)):
        pass
    assert (tmp_path / "config.yml").read_text() == CONFIGURATION
    (event,) = read(tmp_path).Tensors("configuration/text_summary")
    assert event.tensor_proto.string_val[0].decode().splitlines()[:2] == ["    operation:", "      seed: 3"]


def test_a_video_is_an_animation(tmp_path):
    frames = np.zeros((4, 20, 30, 3), np.uint8)
    frames[np.arange(4), :, np.arange(4) * 5] = 255
    with closing(Logger(tmp_path, CONFIGURATION)) as logger:
        logger.video("video/prediction", frames, 2000)
    (event,) = read(tmp_path).Images("video/prediction")
    assert (event.step, event.width, event.height) == (2000, 30, 20)
    with Image.open(io.BytesIO(event.encoded_image_string)) as image:
        assert (image.format, image.size, image.n_frames) == ("GIF", (30, 20), 4)


def test_run_folders_are_all_different(tmp_path):
    folders = [make_run_folder("some-run", tmp_path / "runs") for _ in range(20)]
    assert len(set(folders)) == 20
    assert all(folder.is_dir() and folder.parent == tmp_path / "runs" for folder in folders)
    pattern = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_some-run(_\d+)?"
    assert all(re.fullmatch(pattern, folder.name) for folder in folders)


def test_run_folders_go_to_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_run_folder("some-run")
    assert (tmp_path / "runs" / folder.name).is_dir()


def test_run_folders_do_not_overflow(tmp_path, monkeypatch):
    monkeypatch.setattr("dreamer.utils.logger.range", lambda *_: [1, 2], raising=False)
    monkeypatch.setattr("time.strftime", lambda _: "one-second")
    assert [make_run_folder("x", tmp_path).name for _ in range(2)] == ["one-second", "one-second_2"]
    with pytest.raises(FileExistsError):
        make_run_folder("x", tmp_path)
