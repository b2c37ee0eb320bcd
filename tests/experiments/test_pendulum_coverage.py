"""experiments/pendulum_coverage.py reads a run, and leaves it as it is."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamer.build import build_algorithm, build_replay
from dreamer.config.load import dump_config, load_config
from dreamer.replay.step import Step
from dreamer.training.run_folder import save_configuration
from experiments import pendulum_coverage
from tests.toys import ToyEnv


class Pendulum(ToyEnv):
    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)


def content(folder):
    """What is in it, and the space that it takes."""
    return {path: (path.read_bytes(), path.stat().st_blocks) for path in folder.rglob("*") if path.is_file()}


def test_replay_of_a_run_is_read_and_not_changed(tmp_path, monkeypatch):
    config = load_config("quick-p2e-pendulum-swingup", ["parameters.dreamer.replay_context=True"])
    rssm = build_algorithm(config, Pendulum(), torch.device("cpu")).model.rssm
    replay = build_replay(config, Pendulum(), tmp_path, 0, rssm)
    for angle in (0, 0.5, -3):
        observation = np.array([np.cos(angle), np.sin(angle), 2 * angle], np.float32)
        replay.add(Step(observation, np.zeros(1, np.float32), 0.0, 0.0, 0.0, 1))
    state = replay.state_dict()
    monkeypatch.setattr(pendulum_coverage, "load_checkpoint", lambda run: (1, {"replay": state}))
    for path in (tmp_path / "replay").iterdir():  # copied, with holes in what is not written yet
        size = path.stat().st_size
        os.truncate(path, 4096)
        os.truncate(path, size)
    before = content(tmp_path)
    replay = pendulum_coverage.read_replay(tmp_path, config, Pendulum())
    angle, velocity = pendulum_coverage.visited_states(replay)
    np.testing.assert_allclose((angle, velocity), [[0, 0.5, -3], [0, 1, -6]], rtol=1e-6)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (None, "run is not the folder of a run: it has no config.yml"),
        ("quick-cartpole-swingup", "run is not a run of plan2explore on pendulum-swingup from state"),
        ("quick-p2e-pendulum-swingup", "run: there is no checkpoint yet"),
    ],
)
def test_unreadable_run_is_a_one_line_error(config, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if config:
        Path("run").mkdir()
        save_configuration(Path("run"), dump_config(load_config(config)))
    assert pendulum_coverage.main(["run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ") and error.endswith(f"{line}\n")


def test_invalid_argument_is_a_one_line_error(capsys):
    with pytest.raises(SystemExit, match="2"):
        pendulum_coverage.main(["run", "--fresh", "-1"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: argument --fresh: ")
