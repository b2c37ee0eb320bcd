import os
from pathlib import Path

import pytest

from dreamer.files import claim, delete, legacy_files, owned_files, write_durably


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_write_durably_keeps_the_old_content_if_writing_fails(tmp_path, full_disk):
    """A failed write leaves the previous content under the name."""
    path = tmp_path / "some.file"
    write_durably(path, b"one")
    write_durably(path, b"two, longer")
    assert contents(tmp_path) == {"some.file": b"two, longer"}
    with full_disk(), pytest.raises(OSError, match="No space left.*some.file"):
        write_durably(path, b"three")
    assert contents(tmp_path) == {"some.file": b"two, longer"}


def test_content_is_synced_before_the_rename(tmp_path, monkeypatch):
    path, events = tmp_path / "some.file", []
    sync, replace = os.fsync, Path.replace

    def record_sync(file):
        events.append([path.stat().st_size for path in tmp_path.iterdir()])
        sync(file)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", lambda self, to: events.append("name") or replace(self, to))
    write_durably(path, b"content")
    assert events == [[7], "name", [7]], "the folder is synced after the rename"


def test_symbolic_link_at_the_temporary_name_is_not_followed(tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "some.file.tmp").symlink_to(tmp_path / "precious")
    write_durably(tmp_path / "some.file", b"content")
    assert contents(tmp_path) == {"precious": b"precious", "some.file": b"content"}


# Files that belong to a run


OWN = {"checkpoint-000003.pt", "checkpoint-1000000.pt.tmp", "replay/00000012.steps", "events.out.tfevents.17.a.b.c.1.0"}


@pytest.fixture
def folder(tmp_path):
    """Return a folder with files of a run and files with similar names."""
    (tmp_path / "replay").mkdir()
    for name in OWN | {"checkpoint-3.pt", "old-checkpoint-000003.pt", "events.out.tfevents.backup", "replay/1.steps"}:
        (tmp_path / name).write_text(name)
    return tmp_path


def test_delete_removes_only_claimed_files(folder):
    assert owned_files(folder) is None and legacy_files(folder) == OWN
    claim(folder)
    assert owned_files(folder) == set()
    claim(folder, "checkpoint-000003.pt", "replay/00000012.steps", new=False)
    delete(folder, OWN)
    assert owned_files(folder) == set() and legacy_files(folder) == {
        "checkpoint-1000000.pt.tmp",
        "events.out.tfevents.17.a.b.c.1.0",
    }


def test_existing_files_cannot_be_claimed(folder):
    with pytest.raises(FileExistsError, match="checkpoint-000003.pt is not the run's own"):
        claim(folder, "checkpoint-000003.pt")
    assert owned_files(folder) is None
    claim(folder, "checkpoint-000004.pt")
    (folder / "checkpoint-000004.pt").touch()
    claim(folder, "checkpoint-000004.pt")
    assert owned_files(folder) == {"checkpoint-000004.pt"}


def test_file_list_cannot_name_paths_outside_the_folder(folder):
    names = "replay/../../x", "../checkpoint-000003.pt", "events.out.tfevents./../../x.1.0", "config.yml"
    (folder / "files").write_text("\n".join(names))
    assert owned_files(folder) == set()
