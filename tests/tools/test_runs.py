"""The command that lists runs."""

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
    """Return a working directory with two runs, of seeds 0 and 7."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main.main(["--config", *QUICK]) == 0
        two = "parameters.dreamer.train_iterations=2"
        assert main.main(["--config", *QUICK, "operation.seed=7", "operation.log_dir=other", two]) == 0
    return folder


@pytest.fixture
def list_lines(root, monkeypatch, capsys):
    """Return a function that lists the runs, each line as a list of cells."""
    monkeypatch.chdir(root)

    def cells():
        assert main.main(["--list"]) == 0
        return [[cell.strip() for cell in line.split("  ") if cell] for line in capsys.readouterr().out.splitlines()]

    return cells


def test_list_shows_runs_and_their_progress(list_lines, root, capsys):
    head, one, other = list_lines()
    assert head == ["run", "algorithm", "seed", "state", "iteration", "env steps", "eval/return_ema20"]
    assert one[0].endswith("_seed-0_quick-cartpole-balance") and other[0].endswith("_seed-7_other")
    assert one[1:6] == ["dreamer 1", "0", "complete", "1 of 1", "400"]
    assert other[1:6] == ["dreamer 1", "7", "complete", "2 of 2", "600"]
    main.main(["--resume", "latest"])
    assert f"eval/return_ema20 {other[6]}\n" in capsys.readouterr().out


def test_list_shows_running_and_stopped_runs(list_lines, root):
    one, other = sorted((root / "runs").iterdir())
    assert not is_locked(one)
    with lock_run(one):
        assert [line[3] for line in list_lines()[1:]] == ["running", "complete"]
    text = (other / "config.yml").read_text()
    (other / "config.yml").write_text(text.replace("train_iterations: 2", "train_iterations: 9"))
    assert [line[3:5] for line in list_lines()[1:]] == [["complete", "1 of 1"], ["stopped", "2 of 9"]]
    (other / "config.yml").write_text(text.replace("train_iterations: 2", "train_iterations: 9").replace(*LIMIT))
    assert [line[3:5] for line in list_lines()[1:]] == [["complete", "1 of 1"], ["complete", "2 of 9"]]
    (other / "config.yml").write_text(text)


def test_damaged_and_empty_folders_are_listed_without_an_error(list_lines, root):
    one, other = sorted((root / "runs").iterdir())
    copy = root / "runs" / f"{other.name}_2"
    shutil.copytree(other, copy)
    (copy / "checkpoint-000002.pt").write_bytes(b"damaged")
    (copy / "checkpoint-000009.pt").write_bytes((other / "checkpoint-000002.pt").read_bytes()[:5000])
    assert list_lines()[3][3:5] == ["stopped", "1 of 2"]
    for path in copy.glob("checkpoint-*"):
        path.unlink()
    assert list_lines()[3][3:] == ["stopped", "0 of 2", "0"]
    for text in ("{", "a0: &a0 {x: 1}\n" + REPEATED):
        (copy / "config.yml").write_text(text)
        (copy / "versions.yml").write_text(text)
        assert list_lines()[3] == [copy.name, "stopped", "0 of 0", "0"]
    (copy / "config.yml").unlink()
    os.mkfifo(copy / "config.yml")
    assert len(list_lines()) == 3
    shutil.rmtree(copy)


def test_list_without_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main(["--list"]) == 0
    assert capsys.readouterr().out == f"there is no run in {tmp_path}/runs\n"
    assert main.main(["--list", ""]) == 0
    assert capsys.readouterr().out == f"there is no run in {tmp_path}\n"


def test_versions_of_each_run_are_saved(root):
    assert all("torch" in (run / "versions.yml").read_text() for run in (root / "runs").iterdir())
