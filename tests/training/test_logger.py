"""Logging to several backends and to metrics.jsonl."""

import json
from contextlib import closing

import pytest

from dreamer.config.load import load_config
from dreamer.errors import ConfigError
from dreamer.files import owned_files
from dreamer.tools.curves import read_curves
from dreamer.training.event_files import event_files
from dreamer.training.logger import build_logger
from dreamer.training.metrics_file import FILE, read_metrics


def make_logger(folder, *names):
    return build_logger(load_config("dreamer", [f"operation.loggers=[{', '.join(names)}]"]), folder, "")


def lines(folder):
    return (folder / FILE).read_text().splitlines()


def test_jsonl_writes_one_line_per_report(tmp_path):
    with closing(make_logger(tmp_path, "jsonl")) as logger:
        logger.scalars({"train/return": 0.1}, 1000)
        logger.scalars({"loss/model": 1e-9, "loss/kl": 3.0}, 2000, 1)
    first, second = map(json.loads, lines(tmp_path))
    assert first == {"iteration": 0, "env_steps": 1000, "train/return": 0.1}
    assert second == {"iteration": 1, "env_steps": 2000, "loss/model": 1e-9, "loss/kl": 3.0}
    assert read_metrics(tmp_path) == [first, second] and not event_files(tmp_path)
    curves = {"train/return": {1000: 0.1}, "loss/model": {2000: 1e-9}, "loss/kl": {2000: 3.0}}
    assert read_curves(tmp_path) == curves


def test_resumed_logger_cuts_lines_after_its_state(tmp_path):
    """The file equals that of an uninterrupted run."""
    for folder, stops in ((tmp_path / "whole", ()), (tmp_path / "stopped", (1, 2))):
        folder.mkdir()
        logger = make_logger(folder, "tensorboard", "jsonl")
        for iteration in range(4):
            logger.scalars({"x": iteration / 3}, 10 * iteration, iteration)
            if iteration in stops:
                state = logger.state_dict()
                logger.scalars({"x": -1.0}, 10 * iteration + 10, iteration + 1)
                (folder / FILE).open("a").write('{"half a line')
                logger.close()
                logger = make_logger(folder, "tensorboard", "jsonl")
                logger.load_state_dict(state)
        logger.close()
    assert lines(tmp_path / "whole") == lines(tmp_path / "stopped") and len(lines(tmp_path / "whole")) == 4


def test_new_run_overwrites_the_metrics_file(tmp_path):
    for value in (1.0, 2.0):
        with closing(make_logger(tmp_path, "jsonl")) as logger:
            logger.load_state_dict({})
            logger.scalars({"x": value}, 10)
    assert [report["x"] for report in read_metrics(tmp_path)] == [2.0] and owned_files(tmp_path) == {FILE}


def test_damaged_line_is_cut_out_with_a_warning(tmp_path, capsys):
    with closing(make_logger(tmp_path, "jsonl")) as logger:
        for step in range(3):
            logger.scalars({"x": 1.0}, step)
        state = logger.state_dict()
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:60] + b"\xff\0" + content[62:])
    make_logger(tmp_path, "jsonl").load_state_dict(state)
    assert "damaged and are cut out" in capsys.readouterr().err
    assert [report["env_steps"] for report in read_metrics(tmp_path)] == [0, 2] and owned_files(tmp_path) == {FILE}


def test_state_of_an_older_version_is_read_as_tensorboards(tmp_path):
    """TensorBoard's curves are kept, also while the backend is not selected."""
    with closing(make_logger(tmp_path, "tensorboard")) as logger:
        logger.scalars({"x": 1.0}, 10, 1)
        older_state = logger.state_dict()["tensorboard"]
    for names in (["jsonl"], ["tensorboard", "jsonl"]):
        with closing(make_logger(tmp_path, *names)) as logger:
            logger.load_state_dict(older_state)
            assert logger.state_dict()["tensorboard"] == older_state
            logger.scalars({"x": 2.0}, 20, 2)
            older_state = older_state if "tensorboard" not in names else logger.state_dict()["tensorboard"]
    assert len(read_metrics(tmp_path)) == 1 and read_curves(tmp_path) == {"x": {10: 1.0, 20: 2.0}}


@pytest.mark.parametrize("value", ["[csv]", "wandb", "[tensorboard, [jsonl]]", "null"])
def test_unknown_loggers_are_refused(value):
    with pytest.raises(
        ConfigError, match=r"operation.loggers: expected a list of any of tensorboard, jsonl, wandb, tr"
    ):
        load_config("dreamer", [f"operation.loggers={value}"])
