import io
import os
import re
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dreamer.files import owned_files
from dreamer.training.event_files import event_files
from dreamer.training.tensorboard_log import TensorBoardLog

CONFIGURATION = "operation:\n  seed: 3\n"


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def test_scalars_are_logged_at_their_env_steps(tmp_path):
    with closing(TensorBoardLog(tmp_path, CONFIGURATION)) as logger:
        logger.scalars({"train/loss": 1.5, "train/return": 2.0}, 1000)
        logger.scalars({"train/loss": 0.5}, 3000)
    events = read(tmp_path)
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/return"}
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1000, 1.5), (3000, 0.5)]
    assert [(event.step, event.value) for event in events.Scalars("train/return")] == [(1000, 2.0)]


def test_configuration_is_logged_as_text(tmp_path):
    with closing(TensorBoardLog(tmp_path, CONFIGURATION)) as logger:
        logger.scalars({"x": 1.0}, 10)
    (event,) = read(tmp_path).Tensors("configuration/text_summary")
    assert event.tensor_proto.string_val[0].decode().splitlines()[:2] == ["    operation:", "      seed: 3"]


def test_no_file_is_created_before_the_first_value(tmp_path):
    with closing(TensorBoardLog(tmp_path, CONFIGURATION)) as logger:
        assert list(tmp_path.iterdir()) == []
        logger.load_state_dict({})
    assert list(tmp_path.iterdir()) == []


def test_video_is_logged_as_an_animated_gif(tmp_path):
    frames = np.zeros((4, 20, 30, 3), np.uint8)
    frames[np.arange(4), :, np.arange(4) * 5] = 255
    with closing(TensorBoardLog(tmp_path, CONFIGURATION)) as logger:
        logger.video("video/prediction", frames, 2000)
    (event,) = read(tmp_path).Images("video/prediction")
    assert (event.step, event.width, event.height) == (2000, 30, 20)
    with Image.open(io.BytesIO(event.encoded_image_string)) as image:
        assert (image.format, image.size, image.n_frames) == ("GIF", (30, 20), 4)


# Restoring


def curve(folder):
    return [(event.step, event.value) for event in read(folder).Scalars("x")]


def test_files_of_the_same_second_are_read_in_writing_order(tmp_path, monkeypatch):
    """The order does not depend on the process id. A run that is resumed within a second has such files."""
    monkeypatch.setattr(time, "time", lambda: 1700000000.5)
    for step, process in enumerate((10000, 9999, 99, 99)):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        with closing(TensorBoardLog(tmp_path, CONFIGURATION)) as logger:
            logger.scalars({"x": float(step)}, step)
    assert curve(tmp_path) == [(step, float(step)) for step in range(4)]


def test_restored_log_has_no_values_after_the_state(tmp_path):
    """The log is restored twice, so the curve is in several files."""
    state = {}
    for start, value in ((10, 1.0), (30, 2.0), (50, 3.0)):
        with closing(TensorBoardLog(tmp_path, CONFIGURATION)) as logger:
            logger.load_state_dict(state)
            logger.scalars({"x": value}, start)
            logger.scalars({"x": value}, start + 10)
            state = logger.state_dict()
            logger.scalars({"x": -1.0}, start + 20)
            logger.video("video/lost", np.zeros((2, 8, 8, 3), np.uint8), start + 20)
    assert len(event_files(tmp_path)) == 3 and len(state.pop("checksums")) == len(state) == 3
    TensorBoardLog(tmp_path, CONFIGURATION).load_state_dict(state)
    assert curve(tmp_path) == [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0), (50, 3.0), (60, 3.0)]
    assert read(tmp_path).Tags()["images"] == []


def test_state_holds_the_synced_file_sizes(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with closing(TensorBoardLog(tmp_path, CONFIGURATION)) as logger:
        for step in range(300):
            logger.scalars({"x": 1.0}, step)
        synced.clear()
        state = logger.state_dict()
        assert synced == [logger.file.fileno()]
        assert state.pop("checksums").keys() == state.keys()
        assert state == {path.name: path.stat().st_size for path in event_files(tmp_path)}
        assert len(curve(tmp_path)) == 300


def test_only_files_of_the_run_are_cut_or_deleted(tmp_path):
    """Backups and renamed files stay, even if their name is in the state."""
    with closing(TensorBoardLog(tmp_path, CONFIGURATION)) as logger:
        logger.scalars({"x": 1.0}, 10)
    (path,) = event_files(tmp_path)
    for name in ("config.yml", "events.out.tfevents.backup", "events.out.tfevents.17.copy.2.0"):
        (tmp_path / name).write_bytes(b"precious")
    TensorBoardLog(tmp_path, CONFIGURATION).load_state_dict({"events.out.tfevents.backup": 3})
    assert not path.exists() and [path.read_bytes() for path in tmp_path.glob("[ce]*")] == 3 * [b"precious"]


def test_file_shorter_than_its_state_is_left_unchanged_with_a_warning(tmp_path, capsys):
    """This happens after a power cut. The file is not extended with zeros."""
    with closing(TensorBoardLog(tmp_path, CONFIGURATION)) as logger:
        logger.scalars({"x": 1.0}, 10)
        state = logger.state_dict()
    (path,) = event_files(tmp_path)
    content = path.read_bytes()
    TensorBoardLog(tmp_path, CONFIGURATION).load_state_dict({path.name: state[path.name] + 100})
    assert path.read_bytes() == content
    assert capsys.readouterr().err == f"warning: {path} is shorter than it was: the curves have a gap\n"


@pytest.fixture
def logged_file(tmp_path):
    """Return an event file with nine values and a video, and the log's state at its end."""
    with closing(TensorBoardLog(tmp_path, CONFIGURATION)) as logger:
        for step in range(9):
            logger.scalars({"x": float(step)}, step)
            if step == 4:
                logger.video("video/film", np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), np.uint8), step)
        state = logger.state_dict()
        logger.scalars({"x": -1.0}, 99)
    (path,) = event_files(tmp_path)
    return path, state


def test_damaged_record_is_cut_out_with_a_warning(logged_file, tmp_path, capsys):
    """A changed byte costs at most one value, wherever it is."""
    path, state = logged_file
    content, expected = path.read_bytes(), [(step, float(step)) for step in range(9)]
    for place in range(0, state[path.name], 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        logger = TensorBoardLog(tmp_path, CONFIGURATION)
        logger.load_state_dict(state)
        assert re.fullmatch(
            rf"warning: {path}: \d+ bytes were damaged and are cut out: .* gap\n", capsys.readouterr().err
        )
        curve_now = curve(tmp_path)
        assert len(curve_now) >= 8 and set(curve_now) <= set(expected) and owned_files(tmp_path) == {path.name}
        reopened = TensorBoardLog(tmp_path, CONFIGURATION)
        reopened.load_state_dict(logger.state_dict())
        assert capsys.readouterr().err == "" and curve(tmp_path) == curve_now, "the warning is printed once"


@pytest.mark.parametrize("start", [0, 300])
def test_zeroed_bytes_are_cut_out(start, logged_file, tmp_path, capsys):
    """A crash of the machine may leave zeros. The state, as in older versions, has no checksums."""
    path, state = logged_file
    content = path.read_bytes()
    path.write_bytes(content[:start] + bytes(200) + content[start + 200 :])
    del state["checksums"]
    TensorBoardLog(tmp_path, CONFIGURATION).load_state_dict(state)
    assert "damaged and are cut out" in capsys.readouterr().err and curve(tmp_path)[-1] == (8, 8.0)


def test_older_state_without_checksums_is_restored(logged_file, tmp_path, capsys):
    path, state = logged_file
    content = path.read_bytes()
    TensorBoardLog(tmp_path, CONFIGURATION).load_state_dict({path.name: state[path.name]})
    assert path.read_bytes() == content[: state[path.name]] and capsys.readouterr().err == ""


def test_temporary_file_of_an_interrupted_repair_is_deleted(logged_file, tmp_path, monkeypatch):
    path, state = logged_file
    path.write_bytes(path.read_bytes()[50:])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", interrupt_at("0.tmp", Path.replace))
        TensorBoardLog(tmp_path, CONFIGURATION).load_state_dict(state)
    assert path.with_name(f"{path.name}.tmp") in event_files(tmp_path)
    TensorBoardLog(tmp_path, CONFIGURATION).load_state_dict(state)
    assert event_files(tmp_path) == [path] and owned_files(tmp_path) == {path.name}


def interrupt_at(ending, replace):
    """Return a `replace` that raises KeyboardInterrupt for names with this ending."""

    def replace_or_interrupt(path, target):
        if path.name.endswith(ending):
            raise KeyboardInterrupt
        return replace(path, target)

    return replace_or_interrupt


def test_missing_event_file_gives_a_warning(logged_file, tmp_path, capsys):
    path, state = logged_file
    path.unlink()
    TensorBoardLog(tmp_path, CONFIGURATION).load_state_dict(state)
    assert capsys.readouterr().err == f"warning: {path} is gone: the curves have a gap\n"
