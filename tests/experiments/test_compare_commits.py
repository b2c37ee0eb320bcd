"""experiments/compare_commits.py and compare_runs.py, on stored results instead of training runs."""

import subprocess

import numpy as np
import pytest
import torch

from dreamer.config.load import load_config
from dreamer.training.tensorboard_log import TensorBoardLog
from experiments import compare_commits, compare_runs

MAIN = """
import shutil, sys
words = sys.argv[1:]
with open({folder!r} + "/calls", "a") as calls:
    print(*words, file=calls)
folder = words[words.index("--folder" if "--folder" in words else "--resume") + 1]
shutil.copytree({folder!r} + "/{result}", folder, dirs_exist_ok=True)
"""
POINT = "curve loss/kl [0]"
STATE = "checkpoint-000004.pt: "
WEIGHT = STATE + "algorithm/networks/actor/head.weight"


@pytest.fixture
def make(tmp_path):
    """A function that makes the folder of a run with one point, one checkpoint and one file of a replay."""

    def make(name, kl=1.5, weight=(0.0, 1.0), left=0.5, rows=(0, 1), latents=(1, 2), steps=b"steps", **trainer):
        folder = tmp_path / name
        (folder / "replay").mkdir(parents=True)
        with open(folder / "replay" / "00000000.steps", "wb") as file:
            file.write(steps)
        pool = np.zeros((compare_runs.LATENT_ROWS, 1), np.float32)
        pool[list(rows), 0] = latents
        pool.tofile(folder / "replay" / "00000000.contexts")
        logger = TensorBoardLog(folder, "")
        logger.scalars({"loss/kl": kl, "speed/updates_per_second": np.random.random()}, 1000)
        logger.close()
        state = {
            "configuration": {"name": name},
            "algorithm": {"networks": {"actor": {"head.weight": torch.tensor(weight)}}},
            "trainer": {"updates_left": left, **trainer},
            "replay": {"contexts": {"rows": torch.tensor(rows)}},
            "curves": {name: 1},
        }
        torch.save({"format": 2, "iteration": 4, "state": state}, folder / "checkpoint-000004.pt")
        return folder

    return make


@pytest.fixture
def paths(make):
    """A function that returns the paths at which two runs differ."""

    def paths(old=None, new=None, resumed=False):
        comparison = compare_runs.compare(make("old", **(old or {})), make("new", **(new or {})), resumed)
        assert (comparison.scalars, comparison.tensors) == (1, 2)
        return [line.rpartition(": ")[0] for line in comparison.differences]

    return paths


def test_equal_runs_are_the_same(make):
    """Their speed, configurations and the names of their event files may differ."""
    assert str(compare_runs.compare(make("old"), make("new"))) == "same: 1 scalars, 2 tensors"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"kl": 1.5000001}, POINT),
        ({"kl": float("nan")}, POINT),
        ({"weight": (-0.0, 1.0)}, WEIGHT),
        ({"weight": (0, 1)}, WEIGHT),
        ({"weight": (0.0, 1.0, 2.0)}, WEIGHT),
        ({"left": 0.5000000000000001}, STATE + "trainer/updates_left"),
        ({"left": torch.tensor(0.5)}, STATE + "trainer/updates_left"),
        ({"left": {"model": 0.5}}, STATE + "trainer/updates_left/model"),
        ({"steps": b"stepz"}, "replay/00000000.steps"),
    ],
)
def test_single_change_is_found(paths, change, path):
    assert path in paths(new=change)


def test_keys_of_only_one_run_are_differences(paths):
    assert paths(old={"gone": 1}, new={"added": 2}) == [STATE + "trainer/gone", STATE + "trainer/added"]


def test_nan_equals_nan(paths):
    assert paths(*[{"kl": float("nan"), "weight": (float("nan"), 1.0)}] * 2) == []


def test_renamed_paths_are_compared(paths, monkeypatch):
    renamed = [("trainer/old_name", "trainer/new_name"), ("trainer/gone", None), (None, "trainer/added")]
    monkeypatch.setattr(compare_runs, "RENAMED", renamed)
    old = {"old_name": {"a": 1, "b": 2}, "gone": [1], "gone_too": 1}
    new = {"new_name": {"a": 1, "b": 3}, "added": {}}
    assert paths(old, new) == [STATE + "trainer/new_name/b", STATE + "trainer/gone_too"]


def test_only_whole_names_are_renamed(monkeypatch):
    monkeypatch.setattr(compare_runs, "RENAMED", [("networks/model/rssm", "networks/model/recurrence")])
    for before, after in {"rssm.cell.bias": "recurrence.cell.bias", "rssm_too.bias": "rssm_too.bias"}.items():
        assert compare_runs.path_in_new(f"{STATE}networks/model/{before}") == f"{STATE}networks/model/{after}"


@pytest.mark.parametrize(("latents", "same"), [((1, 2), True), ((2, 1), False)])
def test_latent_states_of_a_resumed_run_may_lie_elsewhere(paths, latents, same):
    assert (paths(new={"rows": (7, 5), "latents": latents}, resumed=True) == []) is same


@pytest.fixture
def repository(make, tmp_path, monkeypatch):
    """A repository with three commits of a program that only copies a stored result: the same one in the first two."""
    make("result")
    make("other", left=0.25)
    root = tmp_path / "repository"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "dreamer.yml").write_text("parameters: {dreamer: {train_iterations: 1}}\n")
    monkeypatch.setattr(compare_commits, "ROOT", root)

    def git(*words):
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        return subprocess.run(["git", "-C", root, *identity, *words], check=True, capture_output=True, text=True).stdout

    git("init", "--quiet")
    for number, result in enumerate(("result", "result", "other")):
        (root / "main.py").write_text(MAIN.format(folder=str(tmp_path), result=result) + f"# {number}\n")
        git("add", "--all")
        git("commit", "--quiet", "--message", result)
    yield tmp_path
    assert len(git("worktree", "list").splitlines()) == 1


def test_equal_commits_are_the_same_and_unknown_settings_are_left_out(repository, capsys):
    """A setting that they do not know is left out, and that is said."""
    assert compare_commits.main(["HEAD~2", "HEAD~1", "--only", "v1-vectors"]) == 0
    old, new, last = capsys.readouterr().out.splitlines()
    assert old.startswith("OLD does not know ") and new.startswith("NEW does not know ")
    assert "parameters.dreamer.collect_interval=3" in new and "train_iterations" not in new
    assert last.split() == ["v1-vectors", "same:", "1", "scalars,", "2", "tensors"]
    calls = (repository / "calls").read_text().splitlines()
    assert len(calls) == 2 and all("train_iterations=4" in call and "collect_interval" not in call for call in calls)


def test_change_in_the_working_tree_is_found(repository, capsys):
    assert compare_commits.main(["HEAD~1", ".", "--only", "v1-vectors", "v3-vectors", "--jobs", "2"]) == 1
    out = capsys.readouterr().out
    assert out.count("trainer/updates_left: 0.5 in OLD, 0.25 in NEW") == 2


def test_new_resumes_what_old_began(repository):
    assert compare_commits.main(["HEAD~1", "HEAD", "--only", "v1-vectors", "--resume"]) == 1
    whole, half, rest = (repository / "calls").read_text().splitlines()
    assert whole.endswith("train_iterations=4") and half.endswith("train_iterations=2")
    assert rest.startswith("--resume ") and rest.endswith("train_iterations=4")


def test_unknown_commit_is_a_one_line_error(repository, capsys):
    assert compare_commits.main(["HEAD", "nope"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "nope" in line


@pytest.mark.parametrize("name", compare_commits.RUNS)
def test_compared_runs_have_valid_settings(name):
    """Today's program knows every key, and none of them is without effect."""
    run = compare_commits.RUNS[name]
    load_config(run.configs.split(), compare_commits.settings(run))
    assert compare_commits.unknown_settings(name, compare_commits.ROOT) == []
