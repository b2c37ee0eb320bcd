import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Timer
from unittest.mock import patch

import pytest

from dreamer.errors import ConfigError
from dreamer.files import claim
from dreamer.training import run_folder
from dreamer.training.run_folder import (
    find_run,
    lock_run,
    make_named_folder,
    make_run_folder,
    named_folder,
    ranks_of,
    save_configuration,
)


def test_run_folders_have_unique_names(tmp_path):
    folders = [make_run_folder("some-run", "a: 1\n", tmp_path / "runs") for _ in range(20)]
    assert sorted(folders) == sorted((tmp_path / "runs").iterdir()) and len(set(folders)) == 20
    pattern = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_some-run(_\d+)?"
    assert all(re.fullmatch(pattern, folder.name) for folder in folders)
    assert all((folder / "config.yml").read_text() == "a: 1\n" for folder in folders)


def test_run_folder_names_that_are_taken_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("dreamer.training.run_folder.range", lambda *_: [1, 2], raising=False)
    monkeypatch.setattr("time.strftime", lambda _: "one-second")
    assert [make_run_folder("x", "", tmp_path).name for _ in range(2)] == ["one-second", "one-second_2"]
    with pytest.raises(FileExistsError):
        make_run_folder("x", "", tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_run_folder_appears_with_its_configuration(tmp_path, monkeypatch, full_disk):
    visible_folders, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: visible_folders.append(list(tmp_path.glob("[!.]*"))) or sync(file))
    make_run_folder("x", "a: 1\n", tmp_path)
    assert visible_folders and not any(visible_folders)
    with full_disk(), pytest.raises(OSError, match="No space left"):
        make_run_folder("x", "a: 1\n", tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_only_one_process_can_start_a_named_run(tmp_path, monkeypatch):
    """The second process cannot rename its folder. Folders left by killed processes do not matter."""
    other_process = tmp_path / "other"
    monkeypatch.setattr("os.getpid", lambda: 7)
    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("shutil.rmtree", lambda *_, **__: None)
            patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            make_named_folder(other_process, "a: 1\n")
    assert make_named_folder(other_process, "a: 1\n") == other_process and [*tmp_path.iterdir()] == [other_process]
    with pytest.raises(ConfigError, match=f"^{other_process} is in use by another process$"):
        make_named_folder(other_process, "a: 2\n")
    assert (other_process / "config.yml").read_text() == "a: 1\n" and [*tmp_path.iterdir()] == [other_process]


def test_next_start_deletes_temporary_folders_of_killed_processes(tmp_path):
    """They are deleted when their process has ended. Similar names that others use are kept."""
    other_process = subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parents[2]
    )
    host = socket.gethostname()
    unrelated = {
        tmp_path / name for name in (f".mine.{host}.1", f".mine.{host}.x", ".mine.elsewhere.1", f".link.{host}.2")
    }
    for path in unrelated - {tmp_path / f".link.{host}.2"}:
        (path / "rank-0").mkdir(parents=True)
    (tmp_path / f".mine.{host}.1" / "rank-0" / "notes").touch()
    (tmp_path / f".link.{host}.2").symlink_to(tmp_path / f".mine.{host}.x")
    try:
        assert other_process.stdout.readline() == b"prepared\n"
        (prepared,) = set(tmp_path.glob(".*")) - unrelated
        make_run_folder("x", "a: 1\n", tmp_path)
        assert set(tmp_path.glob(".*")) == {prepared, *unrelated}, "its process still runs"
    finally:
        other_process.send_signal(signal.SIGKILL)
        other_process.communicate()
    make_named_folder(tmp_path / "y", "a: 1\n")
    assert set(tmp_path.glob(".*")) == unrelated


PREPARE = """
import sys, time
from pathlib import Path
from dreamer.training.run_folder import _prepared
with _prepared(Path(sys.argv[1]) / "one", "a: 1"):
    print("prepared", flush=True)
    time.sleep(60)
"""


# Manipulated runs


def replace_by_link(path):
    """Move a file or a folder of a run outside and put a link in its place."""
    outside = path.parents[2] / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)


RUN_FILES = ["config.yml", "versions.yml", "files", "checkpoint-000001.pt", "replay", "replay/00000000.steps"]
RUN_FILES += ["events.out.tfevents.17.here.1.0", "rank-0", "rank-0/replay", "rank-0/checkpoint-000001.pt"]


@pytest.fixture
def rank_run(tmp_path):
    """Return a run that contains the folder of one rank."""
    folder = tmp_path / "runs" / "strange"
    for place in (folder, folder / "rank-0"):
        (place / "replay").mkdir(parents=True)
        for name in RUN_FILES[:4] + RUN_FILES[5:7]:
            (place / name).write_text("")
        claim(place, *RUN_FILES[3:4], *RUN_FILES[5:7], new=False)
    return folder


@pytest.mark.parametrize("name", RUN_FILES)
def test_symbolic_links_in_a_run_are_refused(name, rank_run):
    """--resume, --evaluate and --folder refuse them."""
    assert find_run(str(rank_run)) == rank_run
    replace_by_link(rank_run / name)
    for find in (find_run, lambda name: named_folder(name, config=None)):
        with pytest.raises(ConfigError, match=f"^{rank_run / name} is a link, which is not followed; put the f"):
            find(str(rank_run))


@pytest.mark.parametrize("name", [name for name in RUN_FILES[1:] if name not in ("replay", "rank-0")])
def test_pipes_in_a_run_are_refused(name, rank_run):
    """Opening a pipe would block."""
    path = rank_run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=f"^{path} is not a f"):
        find_run(str(rank_run))


def test_run_folder_may_be_a_link(rank_run, tmp_path):
    (tmp_path / "mine").symlink_to(rank_run)
    assert find_run(str(tmp_path / "mine")) == tmp_path / "mine"


# Finding a run


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Return three runs and another folder below the working directory."""
    monkeypatch.chdir(tmp_path)
    folders = [Path("runs") / f"2026-0{month}-01_10-00-00_x" for month in (2, 3, 1, 4)]
    for folder in folders:
        folder.mkdir(parents=True)
    for folder in folders[:3]:
        save_configuration(folder, "operation: {}\n")
    return folders


def test_find_run_by_path(runs, tmp_path, monkeypatch):
    assert find_run(str(runs[0])) == tmp_path / runs[0]
    assert find_run(f"{tmp_path / runs[2]}/") == tmp_path / runs[2]
    monkeypatch.chdir(runs[0])
    assert find_run(".") == tmp_path / runs[0]


def test_find_latest_run(runs, tmp_path):
    assert find_run("latest") == tmp_path / runs[1]
    for number in (22, 9, 100, 2):
        Path(f"{runs[1]}_{number}").mkdir()
        save_configuration(Path(f"{runs[1]}_{number}"), "operation: {}\n")
    assert find_run("latest") == tmp_path / f"{runs[1]}_100"


def test_latest_run_may_have_any_name(runs, tmp_path):
    """Its start time is in versions.yml; without it the age of its configuration counts."""
    named = Path("runs") / "a-name"
    named.mkdir()
    save_configuration(named, "operation: {}\n")
    assert find_run("latest") == tmp_path / named
    (named / "versions.yml").write_text("- started: 2026-02-20 09:00:00\n- started: 2026-12-01 09:00:00\n")
    assert find_run("latest") == tmp_path / runs[1]
    (named / "versions.yml").write_text("- started: 2026-03-02 09:00:00\n")
    assert find_run("latest") == tmp_path / named
    (named / "versions.yml").write_text("- python: 3.13.1\n")
    assert find_run("latest") == tmp_path / named


def test_impossible_folder_names_are_refused(runs, monkeypatch):
    monkeypatch.chdir(runs[0])
    for name in ("", "a\0b", "a\nb"):
        with pytest.raises(ConfigError, match="^'.*' is not the folder of a run") as caught:
            find_run(name)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["runs/2026-04-01_10-00-00_x", "runs", "nowhere"])
def test_folder_without_a_run_is_refused(name, runs):
    with pytest.raises(ConfigError, match=f"^{name}.* is not the folder of a run.*config.yml.*latest is {runs[1]}$"):
        find_run(name)


def test_latest_without_any_run_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"no run in {tmp_path / 'runs'}"):
        find_run("latest")
    with pytest.raises(ConfigError, match="it has no config.yml$"):
        find_run("nowhere")


def test_only_rank_folders_are_counted_as_ranks(tmp_path):
    for name in ("rank-0.bak", "rank-1-notes", "rank-"):
        (tmp_path / name).mkdir()
    assert ranks_of(tmp_path) == 1
    for name in ("rank-0", "rank-1"):
        (tmp_path / name).mkdir()
    assert ranks_of(tmp_path) == 2


def test_save_configuration_writes_the_text(tmp_path):
    for text in ("a: 1\n", "task: ähnlich\n"):
        save_configuration(tmp_path, text)
        assert (tmp_path / "config.yml").read_text(encoding="utf-8") == text
    assert len(list(tmp_path.iterdir())) == 1


# Locks

HOLD = """
import sys, time
from pathlib import Path
from dreamer.training.run_folder import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def is_refused(folder, patience=0):
    try:
        with patch.object(run_folder, "PATIENCE", patience), lock_run(folder):
            return False
    except ConfigError as error:
        assert str(error) == f"{folder} is in use by another process"
        return True


def test_locked_run_is_refused_until_its_process_ends(tmp_path):
    """The lock stays when the folder's files are deleted, and ends when the process is killed."""
    (tmp_path / "config.yml").touch()
    root = Path(__file__).resolve().parents[2]
    other_process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, cwd=root, env=os.environ
    )
    try:
        assert other_process.stdout.readline() == b"held\n"
        assert is_refused(tmp_path)
        for path in tmp_path.iterdir():
            path.unlink()
        assert is_refused(tmp_path)
    finally:
        other_process.send_signal(signal.SIGKILL)
        other_process.communicate()
    assert not is_refused(tmp_path)


def test_lock_waits_for_a_short_shared_lock(tmp_path):
    """Listing runs (`is_locked`) locks them for a moment."""
    listing_file = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(listing_file, fcntl.LOCK_SH)
    Timer(0.2, os.close, [listing_file]).start()
    assert not is_refused(tmp_path, patience=60)


def test_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), lock_run(tmp_path):
        assert is_refused(tmp_path)
        raise KeyboardInterrupt
    assert not is_refused(tmp_path)


def test_lock_does_not_affect_other_runs(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with lock_run(tmp_path / "one"):
        assert not is_refused(tmp_path / "other")
