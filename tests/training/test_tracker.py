"""Logging to wandb and trackio, which are optional, without a network."""

from contextlib import closing

import numpy as np
import pytest

import main
from dreamer.training import logger
from dreamer.training.tracker import Tracker


def report(name, folder, start):
    with closing(Tracker(name, folder, {"operation.seed": 3})) as tracker:
        tracker.load_state_dict({})
        tracker.scalars({"x": start / 2}, start, 1)
        tracker.scalars({"x": start / 4, "y": 1.0}, start + 10, 2)
        tracker.video("film", np.zeros((3, 8, 8, 3), np.uint8), start + 10)
        return dict(tracker.run.summary) if name == "wandb" else {}


def test_wandb_offline_resumes_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    summaries = []
    for start in (10, 30):
        summary = report("wandb", tmp_path, start)
        summaries.append((summary["env_steps"], summary["x"]))
    run_id = (tmp_path / "wandb.id").read_text()
    runs = sorted(tmp_path.glob("wandb/offline-run-*"))
    assert len(runs) == 2 and all(run.name.endswith(f"-{run_id}") for run in runs)
    assert summaries == [(20, 2.5), (40, 7.5)]
    assert all(len([*run.glob("files/media/**/*.gif")]) == 1 for run in runs)


def test_trackio_resumes_the_same_run(tmp_path):
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    report("trackio", tmp_path, 10)
    report("trackio", tmp_path, 30)
    logs = SQLiteStorage.get_logs("easydreamer", f"{tmp_path.name}-{(tmp_path / 'trackio.id').read_text()}")
    assert [(entry["step"], entry["x"]) for entry in logs if "x" in entry] == [(10, 5), (20, 2.5), (30, 15), (40, 7.5)]


@pytest.mark.parametrize("name", logger.TRACKERS)
def test_missing_tracker_package_is_an_error_before_the_run_starts(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logger, "find_spec", lambda package: None)
    assert main.main(["--config", "dreamer", f"operation.loggers=[jsonl, {name}]"]) == 2
    assert capsys.readouterr().err.endswith(f"-m pip install {name}\n") and not list(tmp_path.iterdir())
