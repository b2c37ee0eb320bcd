"""The mistakes of experiments/what_matters.py do what they say, and nothing else."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest

import main
from dreamer.tools.plot import read_runs
from dreamer.training.program import PYTHON
from dreamer.training.versions import read_versions, versions
from experiments import what_matters

SEED_EPISODES = 2
TINY = ["train_iterations=2", "batch_size=8", f"seed_episodes={SEED_EPISODES}"]
TINY = [f"parameters.dreamer.{setting}" for setting in TINY] + ["operation.video_interval=0"]
TINY += ["environment.benchmark=gymnasium", "environment.task_name=tests.pausing_envs:PausingEvaluation-v0"]
TINY += ["environment.frame_skip=1", "--config"]  # ten steps an episode: quicker than any task of the Control Suite
DREAMER = [*TINY, "quick-cartpole-swingup", "parameters.dreamer.collect_interval=2"]
DREAMER += ["parameters.dreamer.actor_learning_rate=0.01"]  # so that one update changes the next actions
DREAMER_V3 = [*TINY, "quick-v3-cartpole-swingup", "parameters.dreamer.train_ratio=40", "parameters.dreamer.warm_up=0"]
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "experiments" / "what_matters.py"

LEARNING = {"loss/reward", "loss/kl", "loss/actor", "train/return"}
ACTING = {"loss/actor", "train/return"}
FIRST = {  # the tags that differ from the right program's in the first iteration
    "reward-alignment": LEARNING,
    "discount-weights": ACTING,
    "first-frame": LEARNING | {"replay/steps"},
    "no-reset": LEARNING,
    "exploration-noise": {"train/return"},
    "stored-action": {"train/return"},
    "free-nats": LEARNING,
    "evaluation-by-sampling": {"eval/return"},
}
FIRST_V3 = {
    "kl-sides": LEARNING,
    "slow-target": ACTING,
    "unimix-kl": ACTING | {"loss/kl"},
    "two-hot-sum": ACTING,
}
LATER = {mistake: LEARNING | tags for mistake, tags in (FIRST | FIRST_V3).items()}
LATER |= {"evaluation-by-sampling": {"eval/return"}, "unimix-kl": FIRST_V3["unimix-kl"]}
ROUNDING = 5e-6  # relative; 40 times float32's
NO_MORE_THAN_ROUNDING = {  # tags whose difference may be none or all rounding, as the processor has it
    "free-nats": {"loss/reward"},
    "kl-sides": {"loss/reward"},
    "slow-target": {"loss/reward", "loss/kl", "train/return"},
    "two-hot-sum": {"loss/reward", "loss/kl"},
    "unimix-kl": {"loss/reward", "train/return"},
}
TAGS = sorted(LEARNING | {"replay/steps", "eval/return"})


def play(folder, *arguments):
    """Run the program in this process. Return {tag: values} of its run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main.main([*arguments]) == 0
    (made,) = (folder / "runs").iterdir()
    return {tag: read_runs([made], tag)[made].to_numpy() for tag in TAGS}


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """Return a function that returns the values of the unchanged program; it runs once for each list of arguments."""
    return functools.cache(lambda *arguments: play(tmp_path_factory.mktemp("right"), *arguments))


def difference(wrong, right, tag, iteration):
    """Return how much the values of a tag differ in an iteration, relative to the right one."""
    index = iteration + (SEED_EPISODES if tag == "train/return" else 0)
    return abs(wrong[index] - right[index]) / abs(right[index])


CASES = [pytest.param(DREAMER, mistake, id=mistake) for mistake in FIRST]
CASES += [pytest.param(DREAMER_V3, mistake, id=mistake) for mistake in FIRST_V3]


def test_every_mistake_has_a_case():
    assert sorted(case.id for case in CASES) == sorted(what_matters.MISTAKES)


@pytest.mark.parametrize("arguments, mistake", CASES)
def test_mistake_changes_these_curves_and_no_others(arguments, mistake, right, tmp_path, monkeypatch):
    right = right(*arguments)
    what_matters.MISTAKES[mistake](monkeypatch.setattr)
    wrong = play(tmp_path, *arguments)
    tags = set(TAGS) if mistake == "evaluation-by-sampling" else set(TAGS) - {"eval/return"}  # modes may be equal
    tags -= NO_MORE_THAN_ROUNDING.get(mistake, set())
    for iteration, expected in enumerate([(FIRST | FIRST_V3)[mistake], LATER[mistake]]):
        differences = {tag: difference(wrong[tag], right[tag], tag, iteration) for tag in tags}
        assert {tag for tag in tags if differences[tag] > ROUNDING} == expected & tags, differences
        most = 0 if mistake == "evaluation-by-sampling" else ROUNDING
        assert all(differences[tag] <= most for tag in tags - expected), differences
    assert (wrong["train/return"][:SEED_EPISODES] == right["train/return"][:SEED_EPISODES]).all()
    if mistake == "first-frame":
        assert right["replay/steps"][0] - wrong["replay/steps"][0] == SEED_EPISODES + 1


def test_run_names_the_script_and_the_mistake(tmp_path, monkeypatch):
    """Both are in the printed command that resumes it, and the mistake is in the recorded version and the folder's
    name."""
    monkeypatch.chdir(tmp_path)
    what = ["first-frame", *DREAMER, "parameters.dreamer.train_iterations=1"]
    told = subprocess.run([sys.executable, SCRIPT, *what], check=True, capture_output=True, text=True)
    (made,) = (tmp_path / "runs").iterdir()
    assert made.name.endswith("_first-frame")
    assert read_versions(made / "versions.yml")[0]["commit"] == f"{versions()['commit']} with first-frame"
    assert f"{PYTHON} {SCRIPT} first-frame --resume" in told.stdout + told.stderr
