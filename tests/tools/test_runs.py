"""The list of runs."""

import os
import shutil

import pytest

import main
from dreamer.training.run_folder import is_locked, lock_run
from tests.config.test_load import REPEATED
from tests.test_main import QUICK

LIMIT = "max_env_steps: null", "max_env_steps: 600"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The working directory of two runs, of seeds 0 and 7."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main.main(["--config", *QUICK]) == 0
        two = "parameters.dreamer.train_iterations=2"
        assert main.main(["--config", *QUICK, "operation.seed=7", "operation.log_dir=other", two]) == 0
    return folder


@pytest.fixture
def listed(root, monkeypatch, capsys):
    """The lines of the list, in cells."""
    monkeypatch.chdir(root)

    def cells():
        assert main.main(["--list"]) == 0
        return [[cell.strip() for cell in line.split("  ") if cell] for line in capsys.readouterr().out.splitlines()]

    return cells


def test_what_runs_are_and_how_far_they_came(listed, root, capsys):
    head, one, other = listed()
    assert head == ["run", "algorithm", "seed", "state", "iteration", "env steps", "eval/return_ema20"]
    assert one[0].endswith("_seed-0_quick-cartpole-balance") and other[0].endswith("_seed-7_other")
    assert one[1:6] == ["dreamer 1", "0", "complete", "1 of 1", "400"]
    assert other[1:6] == ["dreamer 1", "7", "complete", "2 of 2", "600"]
    main.main(["--resume", "latest"])
    assert f"eval/return_ema20 {other[6]}\n" in capsys.readouterr().out


def test_running_and_stopped(listed, root):
    one, other = sorted((root / "runs").iterdir())
    assert not is_locked(one)
    with lock_run(one):
        assert [line[3] for line in listed()[1:]] == ["running", "complete"]
    text = (other / "config.yml").read_text()
    (other / "config.yml").write_text(text.replace("train_iterations: 2", "train_iterations: 9"))
    assert [line[3:5] for line in listed()[1:]] == [["complete", "1 of 1"], ["stopped", "2 of 9"]]
    (other / "config.yml").write_text(text.replace("train_iterations: 2", "train_iterations: 9").replace(*LIMIT))
    assert [line[3:5] for line in listed()[1:]] == [["complete", "1 of 1"], ["complete", "2 of 9"]]
    (other / "config.yml").write_text(text)


def test_damaged_and_empty_folders_end_nothing(listed, root):
    one, other = sorted((root / "runs").iterdir())
    copy = root / "runs" / f"{other.name}_2"
    shutil.copytree(other, copy)
    (copy / "checkpoint-000002.pt").write_bytes(b"damaged")
    (copy / "checkpoint-000009.pt").write_bytes((other / "checkpoint-000002.pt").read_bytes()[:5000])
    assert listed()[3][3:5] == ["stopped", "1 of 2"]
    for path in copy.glob("checkpoint-*"):
        path.unlink()
    assert listed()[3][3:] == ["stopped", "0 of 2", "0"]
    for text in ("{", "a0: &a0 {x: 1}\n" + REPEATED):
        (copy / "config.yml").write_text(text)
        (copy / "versions.yml").write_text(text)
        assert listed()[3] == [copy.name, "stopped", "0 of 0", "0"]
    (copy / "config.yml").unlink()
    os.mkfifo(copy / "config.yml")
    assert len(listed()) == 3
    shutil.rmtree(copy)


def test_no_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main(["--list"]) == 0
    assert capsys.readouterr().out == f"there is no run in {tmp_path}/runs\n"
    assert main.main(["--list", ""]) == 0
    assert capsys.readouterr().out == f"there is no run in {tmp_path}\n"


def test_each_run_knows_what_it_was_made_with(root):
    assert all("torch" in (run / "versions.yml").read_text() for run in (root / "runs").iterdir())
