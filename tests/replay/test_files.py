import os
from pathlib import Path

import pytest

from dreamer.files import claim, delete, legacy_files, owned_files, write_durably


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_write_durably(tmp_path, full_disk):
    """What has the name stays whole if writing it anew fails."""
    path = tmp_path / "some.file"
    write_durably(path, b"one")
    write_durably(path, b"two, longer")
    assert contents(tmp_path) == {"some.file": b"two, longer"}
    with full_disk(), pytest.raises(OSError, match="No space left.*some.file"):
        write_durably(path, b"three")
    assert contents(tmp_path) == {"some.file": b"two, longer"}


def test_the_content_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    path, events = tmp_path / "some.file", []
    sync, replace = os.fsync, Path.replace

    def look(file):
        events.append([path.stat().st_size for path in tmp_path.iterdir()])
        sync(file)

    monkeypatch.setattr(os, "fsync", look)
    monkeypatch.setattr(Path, "replace", lambda self, to: events.append("name") or replace(self, to))
    write_durably(path, b"content")
    assert events == [[7], "name", [7]], "the name itself needs the folder's"


def test_a_link_in_the_way_is_not_followed(tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "some.file.tmp").symlink_to(tmp_path / "precious")
    write_durably(tmp_path / "some.file", b"content")
    assert contents(tmp_path) == {"precious": b"precious", "some.file": b"content"}


# Own files


OWN = {"checkpoint-000003.pt", "checkpoint-1000000.pt.tmp", "replay/00000012.steps", "events.out.tfevents.17.a.b.c.1.0"}


@pytest.fixture
def folder(tmp_path):
    """With what a run may have written, and what looks a bit like it."""
    (tmp_path / "replay").mkdir()
    for name in OWN | {"checkpoint-3.pt", "old-checkpoint-000003.pt", "events.out.tfevents.backup", "replay/1.steps"}:
        (tmp_path / name).write_text(name)
    return tmp_path


def test_only_what_is_claimed_is_deleted(folder):
    assert owned_files(folder) is None and legacy_files(folder) == OWN
    claim(folder)
    assert owned_files(folder) == set()
    claim(folder, "checkpoint-000003.pt", "replay/00000012.steps", new=False)
    delete(folder, OWN)
    assert owned_files(folder) == set() and legacy_files(folder) == {
        "checkpoint-1000000.pt.tmp",
        "events.out.tfevents.17.a.b.c.1.0",
    }


def test_what_is_in_the_way_is_left_alone(folder):
    with pytest.raises(FileExistsError, match="checkpoint-000003.pt is not the run's own"):
        claim(folder, "checkpoint-000003.pt")
    assert owned_files(folder) is None
    claim(folder, "checkpoint-000004.pt")
    (folder / "checkpoint-000004.pt").touch()
    claim(folder, "checkpoint-000004.pt")
    assert owned_files(folder) == {"checkpoint-000004.pt"}


def test_a_record_cannot_lead_out_of_the_folder(folder):
    names = "replay/../../x", "../checkpoint-000003.pt", "events.out.tfevents./../../x.1.0", "config.yml"
    (folder / "files").write_text("\n".join(names))
    assert owned_files(folder) == set()
