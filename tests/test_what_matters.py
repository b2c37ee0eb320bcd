"""The mistakes of experiments/what_matters.py do what they say, and nothing else."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from dreamer.plot import read_runs

SEED_EPISODES = 2
TINY = [
    "--config",
    "quick-cartpole-swingup",
    "operation.video_interval=0",
    "environment.frame_skip=40",
    "parameters.dreamer.train_iterations=2",
    "parameters.dreamer.collect_interval=2",
    f"parameters.dreamer.seed_episodes={SEED_EPISODES}",
    "parameters.dreamer.batch_size=8",
]
ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "experiments" / "what_matters.py"
spec = importlib.util.spec_from_file_location("what_matters", SCRIPT)
what_matters = importlib.util.module_from_spec(spec)
spec.loader.exec_module(what_matters)

LEARNING = {"loss/reward", "loss/kl", "loss/actor", "train/return"}
FIRST = {  # the tags that differ from the right program's in the first iteration
    "reward-alignment": LEARNING,
    "discount-weights": {"loss/actor", "train/return"},
    "first-frame": LEARNING | {"replay/steps"},
    "exploration-noise": {"train/return"},
    "evaluation-by-sampling": {"eval/return"},
}
LATER = FIRST | {"discount-weights": LEARNING, "exploration-noise": LEARNING}
TAGS = sorted(LEARNING | {"replay/steps", "eval/return"})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a program with TINY; returns {tag: values} of the run that it made, and its name."""

    def train(*program):
        folder = tmp_path_factory.mktemp("run")
        subprocess.run([sys.executable, *program, *TINY], cwd=folder, check=True, capture_output=True)
        (made,) = (folder / "runs").iterdir()
        return {tag: read_runs([made], tag)[made].to_numpy() for tag in TAGS}, made.name

    return train


@pytest.fixture(scope="module")
def right(run):
    return run(ROOT / "main.py")[0]


@pytest.mark.parametrize("mistake", what_matters.MISTAKES)
def test_what_a_mistake_changes(mistake, run, right):
    wrong, name = run(SCRIPT, mistake)
    assert name.endswith(f"_{mistake}")
    tags = set(TAGS) if mistake == "evaluation-by-sampling" else set(TAGS) - {"eval/return"}  # the mode may be the same
    iterations = {tag: slice(SEED_EPISODES if tag == "train/return" else 0, None) for tag in tags}
    for iteration, expected in enumerate([FIRST[mistake], LATER[mistake]]):
        different = {tag for tag, its in iterations.items() if wrong[tag][its][iteration] != right[tag][its][iteration]}
        assert different == expected
    assert (wrong["train/return"][:SEED_EPISODES] == right["train/return"][:SEED_EPISODES]).all()
    if mistake == "first-frame":
        assert right["replay/steps"][0] - wrong["replay/steps"][0] == SEED_EPISODES + 1


def test_an_edit_that_no_longer_fits_is_refused(tmp_path):
    edit = what_matters.MISTAKES["first-frame"]._replace(right="no such line")
    with pytest.raises(ValueError, match="'no such line' 0 times, not once"):
        what_matters.edited_copy(edit, tmp_path)
