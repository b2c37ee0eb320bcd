import subprocess

import pytest
import torch
import yaml

from dreamer.files import claim, owned_files
from dreamer.training import versions
from dreamer.training.messages import print_threads
from dreamer.training.versions import FILE, commit, read_versions, save_versions, threads_before


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Make a git repository with one commit. Return the commit."""
    home = tmp_path / "program"
    home.mkdir()
    monkeypatch.setattr(versions, "HOME", home)
    monkeypatch.setattr(versions, "PACKAGES", ("torch", "no-such-package"))
    (home / "file").write_text("before")
    for words in ("init -q", "add .", "-c user.name=x -c user.email=x@x commit -qm x"):
        subprocess.run(["git", *words.split()], cwd=home, check=True)
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=home, capture_output=True, text=True).stdout.strip()


def test_versions_of_a_run_are_saved(repository, tmp_path):
    save_versions(tmp_path, 0)
    (entry,) = yaml.safe_load((tmp_path / FILE).read_text())
    assert entry["commit"] == repository and len(repository) == 40 and entry["after_iteration"] == 0
    assert entry["torch"] == torch.__version__ and entry["no-such-package"] is None
    assert entry["python"].startswith("3.") and entry["platform"] and entry["started"].startswith("2")
    assert FILE in owned_files(tmp_path)


def test_resumed_run_knows_its_former_number_of_threads(repository, tmp_path, monkeypatch, capsys):
    assert threads_before(tmp_path) is None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    save_versions(tmp_path, 0)
    assert threads_before(tmp_path) == 3
    print_threads(torch.device("cpu"), 3)
    print_threads(torch.device("cpu"), None)
    assert capsys.readouterr().out == ""
    print_threads(torch.device("cpu"), 2)
    assert "threads     3, before 2" in capsys.readouterr().out
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    save_versions(tmp_path, 3)
    assert threads_before(tmp_path) == 4


def test_resumed_run_adds_an_entry_only_after_a_change(repository, tmp_path):
    save_versions(tmp_path, 0)
    save_versions(tmp_path, 3)
    (tmp_path / "program" / "file").write_text("after")
    save_versions(tmp_path, 5)
    first, second = yaml.safe_load((tmp_path / FILE).read_text())
    assert second["after_iteration"] == 5 and second["commit"] == f"{repository}-dirty"
    assert first["commit"] == repository


def test_first_and_newest_hundred_entries_are_kept(repository, tmp_path, monkeypatch):
    """The first entry and the newest hundred are kept, so the file stays readable."""
    one = {"started": "2026-01-01 00:00:00", **{f"package-{number}": "1.0" for number in range(30)}}
    claim(tmp_path, FILE)
    (tmp_path / FILE).write_text(yaml.safe_dump([one | {"after_iteration": number} for number in range(105)]))
    for iteration in (105, 106):
        monkeypatch.setattr(versions, "versions", lambda now=iteration: {"package-0": str(now)})
        save_versions(tmp_path, iteration)
    assert [entry["after_iteration"] for entry in read_versions(tmp_path / FILE)] == [0, *range(7, 107)]


@pytest.mark.parametrize("text", ["{", "a: 1", "[1, 2]", "\0", ""])
def test_damaged_versions_file_is_replaced(text, tmp_path):
    save_versions(tmp_path, 0)
    (tmp_path / FILE).write_text(text)
    save_versions(tmp_path, 7)
    assert [entry["after_iteration"] for entry in yaml.safe_load((tmp_path / FILE).read_text())] == [7]


def test_file_not_created_by_the_run_is_not_overwritten(tmp_path):
    (tmp_path / FILE).write_text("mine")
    with pytest.raises(FileExistsError, match="versions.yml is not the run's own"):
        save_versions(tmp_path, 0)
    assert (tmp_path / FILE).read_text() == "mine"


def test_commit_is_none_without_git(repository, tmp_path, monkeypatch):
    assert commit() == repository
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() is None
    monkeypatch.undo()
    monkeypatch.setattr(versions, "HOME", tmp_path)
    assert commit() is None
