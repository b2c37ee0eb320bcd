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


def test_run_folders_are_all_different(tmp_path):
    folders = [make_run_folder("some-run", "a: 1\n", tmp_path / "runs") for _ in range(20)]
    assert sorted(folders) == sorted((tmp_path / "runs").iterdir()) and len(set(folders)) == 20
    pattern = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_some-run(_\d+)?"
    assert all(re.fullmatch(pattern, folder.name) for folder in folders)
    assert all((folder / "config.yml").read_text() == "a: 1\n" for folder in folders)


def test_run_folders_do_not_overflow(tmp_path, monkeypatch):
    monkeypatch.setattr("dreamer.training.run_folder.range", lambda *_: [1, 2], raising=False)
    monkeypatch.setattr("time.strftime", lambda _: "one-second")
    assert [make_run_folder("x", "", tmp_path).name for _ in range(2)] == ["one-second", "one-second_2"]
    with pytest.raises(FileExistsError):
        make_run_folder("x", "", tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_has_its_configuration_before_it_has_its_name(tmp_path, monkeypatch, full_disk):
    seen, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: seen.append(list(tmp_path.glob("[!.]*"))) or sync(file))
    make_run_folder("x", "a: 1\n", tmp_path)
    assert seen and not any(seen)
    with full_disk(), pytest.raises(OSError, match="No space left"):
        make_run_folder("x", "a: 1\n", tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_of_two_processes_that_begin_one_run_only_one_does(tmp_path, monkeypatch):
    """The other one comes too late to give it its name. What a process that was killed has left is in nobody's way."""
    other = tmp_path / "other"
    monkeypatch.setattr("os.getpid", lambda: 7)
    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("shutil.rmtree", lambda *_, **__: None)
            patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            make_named_folder(other, "a: 1\n")
    assert make_named_folder(other, "a: 1\n") == other and [*tmp_path.iterdir()] == [other]
    with pytest.raises(ConfigError, match=f"^{other} is in use by another process$"):
        make_named_folder(other, "a: 2\n")
    assert (other / "config.yml").read_text() == "a: 1\n" and [*tmp_path.iterdir()] == [other]


def test_what_a_kill_left_before_the_name_is_cleaned_up_by_the_next_start(tmp_path):
    """Once its process is gone; and nothing that others keep under such a name."""
    other = subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parents[2]
    )
    host = socket.gethostname()
    kept = {tmp_path / name for name in (f".mine.{host}.1", f".mine.{host}.x", ".mine.elsewhere.1", f".link.{host}.2")}
    for path in kept - {tmp_path / f".link.{host}.2"}:
        (path / "rank-0").mkdir(parents=True)
    (tmp_path / f".mine.{host}.1" / "rank-0" / "notes").touch()
    (tmp_path / f".link.{host}.2").symlink_to(tmp_path / f".mine.{host}.x")
    try:
        assert other.stdout.readline() == b"prepared\n"
        (left,) = set(tmp_path.glob(".*")) - kept
        make_run_folder("x", "a: 1\n", tmp_path)
        assert set(tmp_path.glob(".*")) == {left, *kept}, "it is at work"
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    make_named_folder(tmp_path / "y", "a: 1\n")
    assert set(tmp_path.glob(".*")) == kept


PREPARE = """
import sys, time
from pathlib import Path
from dreamer.training.run_folder import _prepared
with _prepared(Path(sys.argv[1]) / "one", "a: 1"):
    print("prepared", flush=True)
    time.sleep(60)
"""


# What a stranger may have made of one


def linked(path):
    """A file or a folder of a run that is now outside, with a link to it in its place."""
    outside = path.parents[2] / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)


OF_A_RUN = ["config.yml", "versions.yml", "files", "checkpoint-000001.pt", "replay", "replay/00000000.steps"]
OF_A_RUN += ["events.out.tfevents.17.here.1.0", "rank-0", "rank-0/replay", "rank-0/checkpoint-000001.pt"]


@pytest.fixture
def strange(tmp_path):
    """A run with a folder for a rank in it."""
    folder = tmp_path / "runs" / "strange"
    for place in (folder, folder / "rank-0"):
        (place / "replay").mkdir(parents=True)
        for name in OF_A_RUN[:4] + OF_A_RUN[5:7]:
            (place / name).write_text("")
        claim(place, *OF_A_RUN[3:4], *OF_A_RUN[5:7], new=False)
    return folder


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_link_in_a_run_is_refused(name, strange):
    """By --resume and --evaluate, and by --folder."""
    assert find_run(str(strange)) == strange
    linked(strange / name)
    for find in (find_run, lambda name: named_folder(name, config=None)):
        with pytest.raises(ConfigError, match=f"^{strange / name} is a link, which is not followed; put the f"):
            find(str(strange))


@pytest.mark.parametrize("name", [name for name in OF_A_RUN[1:] if name not in ("replay", "rank-0")])
def test_what_is_no_file_in_a_run_is_refused(name, strange):
    """A pipe would be waited for."""
    path = strange / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=f"^{path} is not a f"):
        find_run(str(strange))


def test_the_folder_of_a_run_itself_may_be_a_link(strange, tmp_path):
    (tmp_path / "mine").symlink_to(strange)
    assert find_run(str(tmp_path / "mine")) == tmp_path / "mine"


# Finding one


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three runs and a folder of something else; the working directory is the one that they are made from."""
    monkeypatch.chdir(tmp_path)
    folders = [Path("runs") / f"2026-0{month}-01_10-00-00_x" for month in (2, 3, 1, 4)]
    for folder in folders:
        folder.mkdir(parents=True)
    for folder in folders[:3]:
        save_configuration(folder, "operation: {}\n")
    return folders


def test_a_run_by_its_path(runs, tmp_path, monkeypatch):
    assert find_run(str(runs[0])) == tmp_path / runs[0]
    assert find_run(f"{tmp_path / runs[2]}/") == tmp_path / runs[2]
    monkeypatch.chdir(runs[0])
    assert find_run(".") == tmp_path / runs[0]


def test_the_latest_run(runs, tmp_path):
    assert find_run("latest") == tmp_path / runs[1]
    for number in (22, 9, 100, 2):
        Path(f"{runs[1]}_{number}").mkdir()
        save_configuration(Path(f"{runs[1]}_{number}"), "operation: {}\n")
    assert find_run("latest") == tmp_path / f"{runs[1]}_100"


def test_a_run_with_a_name_of_its_own_may_be_the_latest(runs, tmp_path):
    """By what its versions.yml says; while that says nothing, by the age of its configuration."""
    mine = Path("runs") / "a-name"
    mine.mkdir()
    save_configuration(mine, "operation: {}\n")
    assert find_run("latest") == tmp_path / mine
    (mine / "versions.yml").write_text("- started: 2026-02-20 09:00:00\n- started: 2026-12-01 09:00:00\n")
    assert find_run("latest") == tmp_path / runs[1]
    (mine / "versions.yml").write_text("- started: 2026-03-02 09:00:00\n")
    assert find_run("latest") == tmp_path / mine
    (mine / "versions.yml").write_text("- python: 3.13.1\n")
    assert find_run("latest") == tmp_path / mine


def test_names_that_no_folder_can_have(runs, monkeypatch):
    monkeypatch.chdir(runs[0])
    for name in ("", "a\0b", "a\nb"):
        with pytest.raises(ConfigError, match="^'.*' is not the folder of a run") as caught:
            find_run(name)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["runs/2026-04-01_10-00-00_x", "runs", "nowhere"])
def test_what_is_no_run(name, runs):
    with pytest.raises(ConfigError, match=f"^{name}.* is not the folder of a run.*config.yml.*latest is {runs[1]}$"):
        find_run(name)


def test_no_run_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"no run in {tmp_path / 'runs'}"):
        find_run("latest")
    with pytest.raises(ConfigError, match="it has no config.yml$"):
        find_run("nowhere")


def test_a_users_folder_is_no_rank(tmp_path):
    for name in ("rank-0.bak", "rank-1-notes", "rank-"):
        (tmp_path / name).mkdir()
    assert ranks_of(tmp_path) == 1
    for name in ("rank-0", "rank-1"):
        (tmp_path / name).mkdir()
    assert ranks_of(tmp_path) == 2


def test_the_configuration_is_kept(tmp_path):
    for text in ("a: 1\n", "task: ähnlich\n"):
        save_configuration(tmp_path, text)
        assert (tmp_path / "config.yml").read_text(encoding="utf-8") == text
    assert len(list(tmp_path.iterdir())) == 1


# Using one at a time

HOLD = """
import sys, time
from pathlib import Path
from dreamer.training.run_folder import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def refused(folder, patience=0):
    try:
        with patch.object(run_folder, "PATIENCE", patience), lock_run(folder):
            return False
    except ConfigError as error:
        assert str(error) == f"{folder} is in use by another process"
        return True


def test_a_run_in_use_is_refused_until_its_process_is_gone(tmp_path):
    """Also when what lies in the folder is deleted; and free when it is killed and cannot clean up."""
    (tmp_path / "config.yml").touch()
    root = Path(__file__).resolve().parents[2]
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, cwd=root, env=os.environ
    )
    try:
        assert other.stdout.readline() == b"held\n"
        assert refused(tmp_path)
        for path in tmp_path.iterdir():
            path.unlink()
        assert refused(tmp_path)
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    assert not refused(tmp_path)


def test_a_run_that_is_listed_while_it_starts_is_free(tmp_path):
    """`is_locked` holds it for a moment."""
    listing = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(listing, fcntl.LOCK_SH)
    Timer(0.2, os.close, [listing]).start()
    assert not refused(tmp_path, patience=60)


def test_a_lock_ends_with_its_block_whatever_ends_it(tmp_path):
    with pytest.raises(KeyboardInterrupt), lock_run(tmp_path):
        assert refused(tmp_path)
        raise KeyboardInterrupt
    assert not refused(tmp_path)


def test_other_runs_are_free(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with lock_run(tmp_path / "one"):
        assert not refused(tmp_path / "other")
