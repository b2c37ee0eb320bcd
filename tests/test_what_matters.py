"""The mistakes of experiments/what_matters.py do what they say, and nothing else."""

import functools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dreamer.plot import read_runs
from dreamer.program import DIRECTORY, PYTHON, nearby
from dreamer.versions import versions
from experiments import what_matters

SEED_EPISODES = 2
TINY = ["train_iterations=2", "batch_size=8", f"seed_episodes={SEED_EPISODES}"]
TINY = [f"parameters.dreamer.{setting}" for setting in TINY] + ["environment.frame_skip=40"]
TINY += ["operation.video_interval=0", "--config"]
DREAMER = [*TINY, "quick-cartpole-swingup", "parameters.dreamer.collect_interval=2"]
DREAMER_V3 = [*TINY, "quick-v3-cartpole-swingup", "parameters.dreamer.train_ratio=20"]
ROOT = Path(__file__).resolve().parents[1]
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
LATER |= {
    "evaluation-by-sampling": {"eval/return"},
    "unimix-kl": FIRST_V3["unimix-kl"],
}  # rewards: still predicted as 0
ROUNDING = 5e-6  # relative; 40 times float32's
NO_MORE_THAN_ROUNDING = {  # tags whose difference may be none or all rounding, as the processor has it
    "free-nats": {"loss/reward"},
    "kl-sides": {"loss/reward"},
    "slow-target": {"loss/reward"},
    "two-hot-sum": {"loss/reward", "loss/kl"},
    "unimix-kl": {"train/return"},
}
TAGS = sorted(LEARNING | {"replay/steps", "eval/return"})


def play(folder, *program):
    """({tag: values}, name) of a run of a program."""
    subprocess.run([sys.executable, *program], cwd=folder, check=True, capture_output=True)
    (made,) = (folder / "runs").iterdir()
    return {tag: read_runs([made], tag)[made].to_numpy() for tag in TAGS}, made.name


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """The values of the right program with arguments, with which it is run only once."""
    return functools.cache(lambda *arguments: play(tmp_path_factory.mktemp("right"), ROOT / "main.py", *arguments)[0])


def difference(wrong, right, tag, iteration):
    """Return how much the values of a tag differ in an iteration, relative to the right one."""
    index = iteration + (SEED_EPISODES if tag == "train/return" else 0)
    return abs(wrong[index] - right[index]) / abs(right[index])


CASES = [pytest.param(DREAMER, mistake, id=mistake) for mistake in FIRST]
CASES += [pytest.param(DREAMER_V3, mistake, id=mistake) for mistake in FIRST_V3]


def test_every_mistake_is_tried():
    assert sorted(case.id for case in CASES) == sorted(what_matters.MISTAKES)


@pytest.mark.parametrize("arguments, mistake", CASES)
def test_what_a_mistake_changes(arguments, mistake, right, tmp_path):
    right = right(*arguments)
    wrong, name = play(tmp_path, SCRIPT, mistake, *arguments)
    assert name.endswith(f"_{mistake}")
    tags = set(TAGS) if mistake == "evaluation-by-sampling" else set(TAGS) - {"eval/return"}  # the mode may be the same
    tags -= NO_MORE_THAN_ROUNDING.get(mistake, set())
    for iteration, expected in enumerate([(FIRST | FIRST_V3)[mistake], LATER[mistake]]):
        differences = {tag: difference(wrong[tag], right[tag], tag, iteration) for tag in tags}
        assert {tag for tag in tags if differences[tag] > ROUNDING} == expected & tags, differences
        assert all(differences[tag] == 0 for tag in tags - expected), differences
    assert (wrong["train/return"][:SEED_EPISODES] == right["train/return"][:SEED_EPISODES]).all()
    if mistake == "first-frame":
        assert right["replay/steps"][0] - wrong["replay/steps"][0] == SEED_EPISODES + 1


def test_an_edit_that_no_longer_fits_is_refused(tmp_path):
    (edit,) = what_matters.MISTAKES["first-frame"].edits
    with pytest.raises(ValueError, match="'no such line' 0 times, not once"):
        what_matters.edited_copy([edit._replace(right="no such line")], tmp_path)


# What the script starts


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls the script with a main.py of these lines. Returns its exit status."""
    tree, before = tmp_path / "tree", {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    tree.mkdir()
    for name in ("dreamer", "configs", *(path.name for path in ROOT.glob("requirements*.txt"))):
        (tree / name).symlink_to(ROOT / name)
    monkeypatch.setattr(what_matters, "ROOT", tree)
    monkeypatch.chdir(tmp_path)

    def call(text, *arguments):
        (tree / "main.py").write_text(text)
        return what_matters.main(["first-frame", *arguments])

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_by_itself(stop, call, tmp_path):
    """Ctrl-C reaches the script and the run, SIGTERM the script alone."""
    lines = f"""import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(time.sleep(0.4) or open("saved", "w").close() or 7))
time.sleep(0.2)
os.kill(os.getppid(), {stop})
if {stop} == signal.SIGINT: signal.raise_signal(signal.SIGTERM)
time.sleep(9)"""
    try:
        assert call(lines) == 7
    except KeyboardInterrupt:
        pytest.fail("the script has not waited")
    assert (tmp_path / "saved").exists()


def test_a_run_names_the_script_and_is_told_of_the_mistake(call, tmp_path):
    """In what it tells the user to type, in what it was made with and, where it begins, in its name."""
    lines = """import json, sys
from dreamer.program import PROGRAM, TRAINER
from dreamer.versions import versions
json.dump([PROGRAM, TRAINER, versions(), sys.argv[1:]], open("told.json", "w"))"""
    assert call(lines, "--resume", "latest", "operation.device=cpu") == 0
    program, trainer, made_with, arguments = json.loads((tmp_path / "told.json").read_text())
    assert program == trainer == f"{PYTHON} {nearby(SCRIPT, DIRECTORY)} first-frame"
    assert made_with == versions() | {"commit": f"{versions()['commit']} with first-frame"}
    assert arguments == ["--resume", "latest", "operation.device=cpu"]
    assert call(lines, "--config", "x") == 0
    assert json.loads((tmp_path / "told.json").read_text())[-1][-1] == "operation.log_dir=first-frame"
