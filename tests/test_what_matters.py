"""The mistakes of experiments/what_matters.py do what they say, and nothing else."""

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dreamer.plot import read_runs

SEED_EPISODES = 2
TINY = ["train_iterations=2", "collect_interval=2", "batch_size=8", f"seed_episodes={SEED_EPISODES}"]
TINY = [f"parameters.dreamer.{setting}" for setting in TINY] + ["environment.frame_skip=40"]
TINY += ["--config", "quick-cartpole-swingup", "operation.video_interval=0"]
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
def runs(tmp_path_factory):
    """Of the right program (None) and of each with a mistake, two at a time: {mistake: ({tag: values}, name)}."""
    programs = {None: [ROOT / "main.py"], **{mistake: [SCRIPT, mistake] for mistake in what_matters.MISTAKES}}

    def run(program):
        folder = tmp_path_factory.mktemp("run")
        subprocess.run([sys.executable, *program, *TINY], cwd=folder, check=True, capture_output=True)
        (made,) = (folder / "runs").iterdir()
        return {tag: read_runs([made], tag)[made].to_numpy() for tag in TAGS}, made.name

    with ThreadPoolExecutor(2) as executor:
        return dict(zip(programs, executor.map(run, programs.values()), strict=True))


@pytest.mark.parametrize("mistake", what_matters.MISTAKES)
def test_what_a_mistake_changes(mistake, runs):
    (right, _), (wrong, name) = runs[None], runs[mistake]
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
