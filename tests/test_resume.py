"""The real program, killed and resumed, against one that was never interrupted: every number must be the same."""

import random
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from dreamer.replay.buffer import ReplayBuffer
from dreamer.training.checkpoint_file import checkpoints, iteration_of, load_checkpoint
from dreamer.training.metrics_file import read_metrics
from tests.programs import Program

ITERATIONS = 12
SETTINGS = [
    "operation.device=cpu",
    "operation.video_interval=0",
    "environment.benchmark=gymnasium",
    "environment.task_name=tests.pausing_envs:PausingPendulum-v0",
    "environment.frame_skip=4",
    f"parameters.dreamer.train_iterations={ITERATIONS}",
    "parameters.dreamer.collect_interval=3",
    "parameters.dreamer.evaluate_interval=2",
    "parameters.dreamer.seed_episodes=2",
    "parameters.dreamer.batch_size=4",
    "parameters.dreamer.batch_length=8",
    "parameters.dreamer.horizon_length=4",
    "parameters.dreamer.buffer.capacity=500",  # the oldest steps leave it
]
NEW = ["--config", "quick-p2e-pendulum-swingup", *SETTINGS]


def play(folder, *arguments):
    """Run the program in this process to its end."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main.main([*arguments]) == 0


def only_run(folder):
    (run,) = (folder / "runs").iterdir()
    return run


def scalars(run):
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}, purge_orphaned_data=False).Reload()
    tags = (tag for tag in events.Tags()["scalars"] if not tag.startswith("speed/"))
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def lines(run):
    """Return the reports in metrics.jsonl without their speeds."""
    reports = [{tag: each[tag] for tag in each if not tag.startswith("speed/")} for each in read_metrics(run)]
    assert reports[0]["iteration"] == 0 and reports[-1]["iteration"] == ITERATIONS
    return reports


def replay(run):
    buffer = ReplayBuffer(run, 500, (3,), np.float32, 1, seed=0)
    buffer.load_state_dict(load_checkpoint(run)[1]["replay"])
    assert len(buffer) == 500 and buffer.end == 51 * (2 + ITERATIONS)
    return buffer.read([buffer.start], 500)


def assert_same(run, reference, but=("curves", "configuration")):
    """Assert that two runs have the same curves, reports, checkpoint and replay.

    but: parts of a checkpoint that may differ; "curves" are the sizes of the event files.
    """
    assert len(scalars(run)["replay/steps"]) == ITERATIONS
    assert scalars(run) == scalars(reference) and lines(run) == lines(reference)
    (iteration, state), (_, expected) = load_checkpoint(run), load_checkpoint(reference)
    assert iteration == ITERATIONS and state.keys() == expected.keys()
    for part in state.keys() - {*but}:
        assert same(state[part], expected[part]), part
    for part, expected_part in zip(replay(run), replay(reference), strict=True):
        np.testing.assert_array_equal(part, expected_part)


def same(state, other):
    if isinstance(state, torch.Tensor):
        return torch.equal(state, other)
    if isinstance(state, dict):
        return state.keys() == other.keys() and all(same(value, other[key]) for key, value in state.items())
    if isinstance(state, (list, tuple)):
        return len(state) == len(other) and all(map(same, state, other))
    return state == other


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    play(folder, *NEW)
    return only_run(folder)


def test_run_killed_at_random_moments_equals_an_uninterrupted_one(uninterrupted, tmp_path):
    """Each SIGKILL loses at most the iteration during which it came."""
    moments, known = random.Random(0), 0
    command = NEW
    for _ in range(4):
        process = Program(tmp_path, *command)
        process.wait_for_start()
        time.sleep(moments.uniform(0, 0.4))
        process.kill()
        command = ["--resume", "latest"]
        run = only_run(tmp_path)
        ended = len(scalars(run).get("replay/steps", []))  # logged as the last act of an iteration
        before, known = known, max(map(iteration_of, checkpoints(run)), default=0)
        assert known >= max(before, ended - 1)
    play(tmp_path, *command)
    assert_same(run, uninterrupted)


def test_repeated_command_with_folder_resumes_whenever_it_was_killed(uninterrupted, tmp_path, capsys):
    """It is killed before the folder exists, after its configuration, its first and its fifth checkpoint were written.
    Called once more after the end, it prints that the run is complete and changes nothing."""
    run = tmp_path / "runs" / "walker" / "seed0"
    Program(tmp_path, *NEW, "--folder", "runs/walker/seed0").kill()
    for moment in ("config.yml", "checkpoint-000001.pt", "checkpoint-000005.pt"):
        process = Program(tmp_path, *NEW, "--folder", "runs/walker/seed0")
        while process.poll() is None and not (run / moment).exists():
            time.sleep(0.01)
        process.kill()
    for _ in range(2):
        play(tmp_path, *NEW, "--folder", "runs/walker/seed0")
        assert_same(run, uninterrupted)
    output = capsys.readouterr().out
    assert "complete    after iteration 12; 12 were requested" in output and [*run.parent.iterdir()] == [run]


def test_sigterm_saves_the_iteration_that_no_checkpoint_holds_yet(uninterrupted, tmp_path):
    """tests/training/test_evaluation.py tests Ctrl-C, and tests/test_train.py a KeyboardInterrupt."""
    (tmp_path / "hold").touch()
    process = Program(tmp_path, *NEW, "operation.checkpoint_interval=1000")
    process.wait_for_start()
    run = only_run(tmp_path)
    while len(scalars(run).get("replay/steps", [])) < 3:  # then it waits for its sixth episode
        assert process.poll() is None, process.errors
        time.sleep(0.2)
    assert not checkpoints(run)
    process.process.terminate()
    assert process.wait() == 143, process.errors
    assert "Traceback" not in process.errors and "--resume" in process.errors
    assert [iteration_of(path) for path in checkpoints(run)] == [3]
    (tmp_path / "hold").unlink()
    play(tmp_path, "--resume", str(run))
    assert_same(
        run, uninterrupted, but=("curves", "configuration", "kept")
    )  # fewer are saved, of which one is the best


def test_run_with_checkpoint_format_1_resumes(tmp_path, monkeypatch):
    """The stored run is a Plan2Explore of two iterations; its checkpoints have no part for the trainer."""
    with tarfile.open(Path(__file__).parent / "data" / "run-format-1.tar.xz") as archive:
        archive.extractall(tmp_path)
    run = tmp_path / "format-1"
    _, before = load_checkpoint(run)
    assert before["trainer"]["iteration"] == 2 and before["trainer"]["env_steps"] == 3000
    monkeypatch.chdir(tmp_path)
    assert main.main(["--resume", str(run), "parameters.dreamer.train_iterations=3"]) == 0
    assert [step for step, _ in scalars(run)["eval/return"]] == [2000, 3000, 4000]
    iteration, after = load_checkpoint(run)
    old, new = (state["algorithm"]["optimizers"]["model"]["state"][0] for state in (before, after))
    assert iteration == 3 and (old["step"], new["step"]) == (4, 6)
    assert after["replay"]["end"] == before["replay"]["end"] + 21
