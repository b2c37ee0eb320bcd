"""experiments/twenty_tasks.py."""

import math
import shlex

import numpy as np
import pandas as pd
import pytest

from dreamer.tools import sweep
from dreamer.tools.published import COLUMNS
from experiments import twenty_tasks

SCORES = pd.DataFrame(
    [
        ("walker_walk", 0, 100_000, 500.0, 50.0, 20, "1a2b3c4"),
        ("walker_walk", 1, 100_000, 700.0, 50.0, 20, "1a2b3c4"),
        ("hopper_hop", 0, 100_000, 3.0, 8.0, 16, "1a2b3c4"),
        ("quadruped_run", 0, 100_000, 200.0, 0.0, 20, "1a2b3c4"),
    ],
    columns=twenty_tasks.COLUMNS,
)
REFERENCE = pd.DataFrame(
    [
        ("random actions", "walker_walk", None, 4, 0, 40, 30, 9),
        ("random actions", "walker_walk", None, 8, 0, 999, 0, 9),
        ("random actions", "hopper_hop", None, 4, 0, 0, 0, 9),
        ("random actions", "quadruped_run", None, 4, 0, 100, 20, 4),
        ("dreamer-v3-proprio", "walker_walk", "state", 2, 400_000, 1, 1, 5),
        ("dreamer-v3-proprio", "walker_walk", "state", 2, 500_000, 940, 1, 5),
        ("dreamer-v3-proprio", "hopper_hop", "state", 2, 500_000, 30, 1, 5),
    ],
    columns=COLUMNS,
)


def test_returns_are_compared_with_random_actions_and_published_returns():
    found = twenty_tasks.compare(SCORES, REFERENCE).set_index("task")
    walker, hopper, quadruped = (found.loc[task] for task in ("walker_walk", "hopper_hop", "quadruped_run"))
    error = math.hypot(np.std([500, 700], ddof=1) / math.sqrt(2), 30 / 3)  # of the seeds, of random actions
    assert walker["errors"] == pytest.approx(560 / error) and walker["published"] == 940
    assert hopper["errors"] == pytest.approx(3 / (8 / 4)), "of one seed's episodes"
    assert quadruped["errors"] == pytest.approx(100 / 10) and math.isnan(quadruped["published"])
    text = twenty_tasks.table(twenty_tasks.compare(SCORES, REFERENCE))
    assert "| walker_walk | 500, 700 | **600** | 40 | **5.6** | 470 |" in text
    assert "2 of 3 tasks are 3 standard errors above random actions, 1 of 2 published ones" in text
    expected = sorted([(500 - 40) / 900, (700 - 40) / 900, 0.1])
    assert f"normalised returns: {np.mean(expected):.2f}" in text, "the quarter of three, rounded down, is none"


def test_each_complete_run_is_played_once(tmp_path, monkeypatch, capsys, short_control_suite):
    """A run that is not complete is left for later."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(twenty_tasks, "TASKS", ["cartpole-balance"])
    short = [f"parameters.dreamer.{key}=1" for key in ("train_iterations", "collect_interval", "num_evaluate")]
    short += ["parameters.dreamer.seed_episodes=1"]
    small = ["parameters.dreamer.train_ratio=null", "operation.device=cpu", "operation.compile=False"]
    words = shlex.split(twenty_tasks.command(seeds=1).replace("quick-v3", "quick-v3 environment.frame_skip=50"))
    assert sweep.main([*words[4:], *short, *small]) == 0
    path = tmp_path / "scores.csv"
    for _ in range(2):
        twenty_tasks.play(tmp_path / "runs/twenty-tasks", "1a2b3c4", path)
    [row] = pd.read_csv(path).to_dict("records")
    assert row["task"] == "cartpole_balance" and row["episodes"] == 20 and 0 < row["mean"] < 200
    assert len(capsys.readouterr().out.splitlines()) == 1
