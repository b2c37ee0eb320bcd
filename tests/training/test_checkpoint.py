import errno
import io
import os
import random
import signal
import zipfile
from collections import deque, namedtuple
from contextlib import suppress
from datetime import date
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer.errors import CheckpointError
from dreamer.files import EVER_WRITTEN, claim, owned_files
from dreamer.training.checkpoint import Checkpointer
from dreamer.training.checkpoint_file import (
    FORMAT,
    checkpoints,
    copy_to_cpu,
    iteration_of,
    load_checkpoint,
    load_chosen,
)
from dreamer.training.checkpoint_retention import CheckpointRetention
from tests.replay.test_files import contents


class Color(IntEnum):
    RED = 1


class Part:
    """An object with a state: a tensor that changes in place, and a number."""

    def __init__(self):
        self.weights, self.count = torch.zeros(1000), 0

    def state_dict(self):
        return {"weights": self.weights, "count": self.count}

    def load_state_dict(self, state):
        self.weights.copy_(state["weights"])
        self.count = state["count"]


class Replay(Part):
    """Records the states passed to `keep` and the checkpoints that existed at the time."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.kept = folder, []

    def keep(self, states):
        self.kept.append(([state["count"] for state in states], iterations(self.folder)))


class Curves(Part):
    def load_state_dict(self, state):
        self.cut_to = state
        if state:
            super().load_state_dict(state)


class Run:
    """A run of three parts; every iteration sets all of them to its number.

    averages: of the evaluations, by iteration; an iteration without one is not evaluated.
    """

    def __init__(self, folder, interval=1, every=0, averages=()):
        self.folder, self.averages = folder, dict(averages)
        self.parts = {"algorithm": Part(), "replay": Replay(folder), "curves": Curves()}
        self.kept = CheckpointRetention(interval, every)
        self.checkpointer = Checkpointer(folder, self.parts, self.kept)

    def iterate(self, *iterations, last=None):
        for iteration in iterations:
            self.change(iteration)
            if iteration in self.averages:
                self.kept.begin_evaluation(iteration, iteration == last)
                self.kept.end_evaluation(self.averages[iteration])
            self.checkpointer(iteration, iteration == last)
        return self

    def change(self, iteration):
        for part in self.parts.values():
            part.weights.fill_(iteration)
            part.count = iteration

    @property
    def values(self):
        return [(part.count, *part.weights.unique().tolist()) for part in self.parts.values()]


def restored(folder, *settings, **keywords):
    run = Run(folder, *settings, **keywords)
    run.checkpointer.restore()
    return run


def iterations(folder):
    return [iteration_of(path) for path in checkpoints(folder)]


def checkpoint(folder, iteration):
    return folder / f"checkpoint-{iteration:06}.pt"


# Interval and number of checkpoints


def test_checkpoints_are_written_at_the_interval_and_at_the_end(tmp_path):
    run, seen_iterations = Run(tmp_path, interval=3), []
    for iteration in range(1, 9):
        run.iterate(iteration, last=8)
        seen_iterations.append(iterations(tmp_path))
    assert seen_iterations == [[], [], [3], [3], [3], [6, 3], [6, 3], [8, 6]]


def test_checkpoints_are_listed_newest_first(tmp_path):
    names = ["checkpoint-000009.pt", "checkpoint-000010.pt", "checkpoint-1000000.pt", "checkpoint-999999.pt"]
    others = ["checkpoint-000012.pt.tmp", "checkpoint-.pt", "config.yml", "my-checkpoint-000013.pt"]
    for name in names + others:
        (tmp_path / name).touch()
    assert iterations(tmp_path) == [1_000_000, 999_999, 10, 9]


def test_replay_keeps_the_steps_of_the_two_newest_checkpoints(tmp_path):
    """Steps of older checkpoints are released once a newer one is written."""
    run = Run(tmp_path).iterate(1, 2, 3)
    assert run.parts["replay"].kept == [([1], [1]), ([1, 2], [2, 1]), ([2, 3], [3, 2])]
    assert restored(tmp_path).iterate(4).parts["replay"].kept == [([3, 4], [4, 3])]


def test_written_checkpoint_is_the_copy_from_the_iterations_end(tmp_path):
    run = Run(tmp_path, interval=2).iterate(1)
    run.change(77)
    run.checkpointer.write()
    assert restored(tmp_path).values == 3 * [(1, 1.0)]


def test_write_saves_the_last_finished_iteration_once(tmp_path, monkeypatch):
    run = Run(tmp_path, interval=10)
    run.checkpointer.write()
    assert iterations(tmp_path) == [], "no iteration has ended yet"
    run.iterate(1, 2, 3)
    assert iterations(tmp_path) == []
    run.checkpointer.write()
    assert iterations(tmp_path) == [3] and restored(tmp_path).values == 3 * [(3, 3.0)]
    monkeypatch.setattr(torch, "save", lambda *_: pytest.fail("written twice"))
    run.checkpointer.write()
    restored(tmp_path).checkpointer.write()


# The best checkpoint and permanent ones


def best(folder):
    return load_chosen(folder, "best", lambda state: None)


def test_best_checkpoint_has_the_highest_average_of_saved_iterations(tmp_path):
    """Of equal averages the first wins. Iteration 5 is not saved and iteration 8 is not evaluated."""
    averages = {1: 9.0, 2: 1.0, 4: 5.0, 5: 7.0, 6: 5.0, 10: 6.0}
    run, seen_iterations = Run(tmp_path, interval=2, averages=averages), []
    for iteration in range(1, 13):
        run.iterate(iteration)
        seen_iterations.append((iterations(tmp_path), best(tmp_path)) if iteration % 2 == 0 else None)
    assert seen_iterations[1::2] == [
        ([2], 2),
        ([4, 2], 4),
        ([6, 4], 4),
        ([8, 6, 4], 4),
        ([10, 8, 4], 10),
        ([12, 10], 10),
    ]
    assert checkpoint(tmp_path, 10).samefile(tmp_path / "checkpoint-best.pt"), "it takes no space of its own"


def test_checkpoint_is_kept_while_its_evaluation_runs(tmp_path):
    """A background evaluation takes three iterations, and the run is resumed in between."""
    run = Run(tmp_path, averages={1: 3.0}).iterate(1)
    run.kept.begin_evaluation(2, False)
    run.iterate(2, 3, 4)
    run = restored(tmp_path)
    assert iterations(tmp_path) == [4, 3, 2, 1] and best(tmp_path) == 1
    run.kept.end_evaluation(4.0)
    run.iterate(5, 6)
    assert iterations(tmp_path) == [6, 5, 2] and best(tmp_path) == 2


def test_checkpoints_kept_by_every_stay_when_the_setting_changes(tmp_path):
    run = Run(tmp_path, interval=2, every=3).iterate(*range(1, 9))
    assert iterations(tmp_path) == [8, 6, 3]
    restored(tmp_path, interval=1, every=0).iterate(*range(9, 13))
    assert iterations(tmp_path) == [12, 11, 6, 3] and run.parts["replay"].kept[-1][0] == [6, 8]
    assert not (tmp_path / "checkpoint-best.pt").exists()


def test_best_checkpoint_is_restored_with_the_iteration(tmp_path):
    """This also holds where hard links are not allowed."""
    averages = {1: 1.0, 2: 5.0, 3: 3.0, 4: 6.0, 5: 0.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", crash_after(os.link, [0], OSError(errno.EPERM, "Operation not permitted")))
        Run(tmp_path, averages=averages).iterate(1, 2, 3, 4)
    assert iterations(tmp_path) == [4, 3, 2] and best(tmp_path) == 4
    truncate(checkpoint(tmp_path, 4))
    run = restored(tmp_path, averages=averages)
    assert run.values == 3 * [(3, 3.0)] and best(tmp_path) == 2
    run.iterate(4, 5)
    assert best(tmp_path) == 4


def test_state_without_retention_data_can_be_resumed(tmp_path):
    Run(tmp_path).iterate(1)
    content = torch.load(checkpoint(tmp_path, 1), weights_only=True)
    del content["state"]["kept"]
    torch.save(content, checkpoint(tmp_path, 1))
    restored(tmp_path, averages={2: 1.0}).iterate(2)
    assert best(tmp_path) == 2


# Restoring


def test_interrupt_during_a_snapshot_is_deferred(tmp_path):
    """So all data-parallel workers keep the snapshot of the same iteration."""
    run = Run(tmp_path, interval=10).iterate(1)
    part, original = run.parts["replay"], run.parts["replay"].state_dict

    def state_dict():
        signal.raise_signal(signal.SIGINT)
        return original()

    part.state_dict = state_dict
    with pytest.raises(KeyboardInterrupt):
        run.iterate(2)
    assert run.checkpointer.snapshot[0] == 2


def test_run_without_a_checkpoint_starts_from_the_beginning(tmp_path):
    run = restored(tmp_path)
    assert run.parts["curves"].cut_to == {} and run.values == 3 * [(0, 0.0)]


def test_run_with_an_unfinished_first_checkpoint_starts_from_the_beginning(tmp_path, full_disk):
    claim(tmp_path, "checkpoint-000001.pt", "checkpoint-000001.pt.tmp")
    (tmp_path / "checkpoint-000001.pt.tmp").write_bytes(b"half of")
    run = restored(tmp_path)
    assert run.parts["curves"].cut_to == {}
    run.iterate(1, 2, 3)
    assert iterations(tmp_path) == [3, 2]


@pytest.mark.parametrize("without_file_list", [False, True])
def test_run_whose_checkpoints_were_deleted_is_refused(without_file_list, tmp_path):
    """The curves still exist. without_file_list: as in runs of an older version."""
    Run(tmp_path).iterate(1, 2)
    for iteration in (1, 2):
        checkpoint(tmp_path, iteration).unlink()
    (tmp_path / "events.out.tfevents.17.here.1.0").write_bytes(b"curves")
    if without_file_list:
        (tmp_path / "files").unlink()
    before = contents(tmp_path)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=f"checkpoints are gone; to start anew: .*--config {tmp_path}/config"):
            restored(tmp_path)
    assert contents(tmp_path) == before


class Crash(BaseException):
    """An exception that no code catches."""


def crash_after(function, calls_left, error=Crash):
    """Return a function that calls `function` calls_left[0] times and then raises `error`."""

    def action(*arguments, **keywords):
        calls_left[0] -= 1
        if calls_left[0] < 0:
            raise error
        return function(*arguments, **keywords)

    return action


def test_crash_at_any_disk_operation_loses_at_most_one_iteration(tmp_path, monkeypatch):
    """Crash before each disk operation of the first three iterations; the second iteration is the best."""
    points, averages = 0, {1: 1.0, 2: 5.0, 3: 3.0, 4: 2.0, 5: 0.0}
    calls_left = [-1]
    while calls_left[0] < 0:
        folder, calls_left = tmp_path / str(points), [points]
        folder.mkdir()
        run, begun = Run(folder, averages=averages), 0
        with pytest.MonkeyPatch.context() as patch, suppress(Crash):
            for owner, name in ((os, "fsync"), (os, "link"), (Path, "replace"), (Path, "unlink"), (Path, "open")):
                patch.setattr(owner, name, crash_after(getattr(owner, name), calls_left))
            run.checkpointer.restore()
            for begun in (1, 2, 3):
                run.iterate(begun)
        resumed = restored(folder, averages=averages)
        reached = resumed.values[0][0]
        assert reached in (begun, max(0, begun - 1)) and resumed.values == 3 * [(reached, float(reached))]
        assert reached == 0 or best(folder) == min(reached, 2)
        resumed.iterate(*range(reached + 1, 6))
        names = ["checkpoint-000002.pt", "checkpoint-000004.pt", "checkpoint-000005.pt", "checkpoint-best.pt", "files"]
        assert sorted(contents(folder)) == names and best(folder) == 2
        points += 1
    assert points > 40


# Files that do not belong to the run


def test_run_without_a_file_list_can_be_resumed(tmp_path):
    Run(tmp_path).iterate(1, 2)
    (tmp_path / "files").unlink()
    run = restored(tmp_path)
    assert owned_files(tmp_path) == {"checkpoint-000001.pt", "checkpoint-000002.pt", EVER_WRITTEN}
    run.iterate(3)
    assert iterations(tmp_path) == [3, 2]


def test_files_that_look_like_checkpoints_are_never_deleted(tmp_path, capsys):
    Run(tmp_path).iterate(1, 2)
    content = checkpoint(tmp_path, 2).read_bytes()
    names = ["checkpoint-000099.pt", "checkpoint-000001.pt.tmp2", "checkpoint-2.pt", "checkpoint-000098.pt.tmp"]
    for name in names:
        (tmp_path / name).write_bytes(content)
    run = restored(tmp_path).iterate(3, 4)
    assert all((tmp_path / name).read_bytes() == content for name in names)
    assert "checkpoint-000099.pt cannot be used (ValueError: it holds iteration 2)" in capsys.readouterr().err
    assert run.values == 3 * [(4, 4.0)] and not checkpoint(tmp_path, 2).exists()


def test_existing_file_is_not_overwritten_by_a_checkpoint(tmp_path):
    run = Run(tmp_path).iterate(1)
    checkpoint(tmp_path, 2).write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="checkpoint-000002.pt is not the run's own"):
        run.iterate(2)
    assert checkpoint(tmp_path, 2).read_bytes() == b"precious"
    checkpoint(tmp_path, 2).unlink()
    run.checkpointer.write()
    assert restored(tmp_path).values == 3 * [(2, 2.0)]


@pytest.mark.parametrize("make_entry", [os.mkdir, os.mkfifo, lambda path: os.symlink("nowhere", path)])
def test_entries_that_are_no_files_are_ignored(make_entry, tmp_path):
    Run(tmp_path).iterate(1, 2)
    make_entry(checkpoint(tmp_path, 3))
    assert restored(tmp_path).values == 3 * [(2, 2.0)]


# Damage


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def cut_the_end(path):
    os.truncate(path, path.stat().st_size - 1)


def empty(path):
    path.write_bytes(b"")


def garbage(path):
    path.write_bytes(random.Random(0).randbytes(5000))


def flip_bits(path):
    """Change bytes within a tensor, which torch loads without an error."""
    with zipfile.ZipFile(path) as archive:
        (tensor, *_) = (member for member in archive.infolist() if "/data/" in member.filename)
    content = bytearray(path.read_bytes())
    content[tensor.header_offset + 2000 : tensor.header_offset + 2003] = b"\xff\xff\xff"
    path.write_bytes(content)
    torch.load(path, weights_only=True)


def without_format(path):
    torch.save({"weights": torch.zeros(3)}, path)


def with_changed_state(change):
    """Return a function that changes the state within a valid checkpoint file."""

    def damage(path):
        content = torch.load(path, weights_only=True)
        change(content["state"])
        torch.save(content, path)

    return damage


DAMAGES = [truncate, cut_the_end, empty, garbage, flip_bits, without_format]
DAMAGES += [
    with_changed_state(lambda state: state.pop("replay")),
    with_changed_state(lambda state: state.update(replay=[])),
    with_changed_state(lambda state: state["algorithm"].update(weights=torch.zeros(7))),
    with_changed_state(lambda state: state["curves"].pop("count")),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_falls_back_to_the_previous_one(damage, tmp_path, capsys):
    Run(tmp_path).iterate(1, 2)
    damage(checkpoint(tmp_path, 2))
    assert restored(tmp_path).values == 3 * [(1, 1.0)]
    captured = capsys.readouterr()
    cannot, moved = captured.err.splitlines()
    assert cannot.startswith(f"warning: {checkpoint(tmp_path, 2)} cannot be used") and captured.out == ""
    assert moved.startswith("warning: checkpoint-000002.pt is now ") and moved.endswith("resuming from iteration 1")
    restored(tmp_path)
    assert capsys.readouterr() == ("", ""), "the warning is printed once"


def test_intact_checkpoints_give_no_warning(tmp_path, capsys):
    Run(tmp_path).iterate(1, 2)
    restored(tmp_path)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("damage", DAMAGES)
def test_run_with_only_damaged_checkpoints_is_refused(damage, tmp_path):
    Run(tmp_path).iterate(1, 2)
    for iteration in (1, 2):
        damage(checkpoint(tmp_path, iteration))
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint can be used") as caught:
        restored(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def test_loading_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint yet") as caught:
        load_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_damaged_checkpoint_does_not_count_as_one_of_the_two_kept(tmp_path):
    Run(tmp_path).iterate(10, 11, 12)
    truncate(checkpoint(tmp_path, 12))
    run = restored(tmp_path, interval=5).iterate(12, 13, 14)
    assert iterations(tmp_path) == [11]
    run.iterate(15)
    assert iterations(tmp_path) == [15, 11]
    assert run.parts["replay"].kept == [([11, 15], [15, 11])]
    truncate(checkpoint(tmp_path, 15))
    assert restored(tmp_path).values == 3 * [(11, 11.0)]


def test_damaged_checkpoint_is_rewritten_at_its_iteration(tmp_path):
    Run(tmp_path).iterate(10, 11, 12)
    truncate(checkpoint(tmp_path, 12))
    restored(tmp_path).iterate(12)
    assert iterations(tmp_path) == [12, 11] and restored(tmp_path).values == 3 * [(12, 12.0)]


@pytest.mark.parametrize("other", [0, FORMAT + 1, "2.0"])
def test_other_checkpoint_formats_are_refused_and_left_unchanged(other, tmp_path):
    run = Run(tmp_path).iterate(1)
    torch.save({"format": other, "iteration": 2, "state": {}}, checkpoint(tmp_path, 2))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run = Run(tmp_path)
    with pytest.raises(CheckpointError, match=f"format {other}, this program reads {FORMAT}") as caught:
        run.checkpointer.restore()
    assert "checkpoint-000002.pt" in str(caught.value) and "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert run.values == 3 * [(0, 0.0)] and not hasattr(run.parts["curves"], "cut_to")


class Exploit:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


def test_code_in_a_checkpoint_is_not_executed(tmp_path, capsys):
    Run(tmp_path).iterate(1)
    victim = tmp_path / "executed"
    torch.save({"format": FORMAT, "iteration": 2, "state": Exploit(victim)}, checkpoint(tmp_path, 2))
    assert load_checkpoint(tmp_path)[0] == 1
    assert not victim.exists() and "cannot be used" in capsys.readouterr().err
    torch.load(checkpoint(tmp_path, 2), weights_only=False)
    assert victim.exists(), "the test itself works"


TEMPORARY_ERRORS = [
    OSError(errno.EIO, "Input/output error"),
    PermissionError(errno.EACCES, "Permission denied"),
    MemoryError(),
    torch.cuda.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to"),
]


@pytest.mark.parametrize("error", TEMPORARY_ERRORS)
@pytest.mark.parametrize("failing_part", ["the file", "a part"])
def test_temporary_errors_are_not_reported_as_damage(error, failing_part, tmp_path, monkeypatch):
    """Restoring stops without a change, and the next start uses the newest checkpoint."""

    def fail(*arguments, **keywords):
        raise error

    Run(tmp_path).iterate(1, 2)
    before, run = contents(tmp_path), Run(tmp_path)
    owner = zipfile.ZipFile if failing_part == "the file" else run.parts["replay"]
    monkeypatch.setattr(owner, "testzip" if failing_part == "the file" else "load_state_dict", fail)
    with pytest.raises(CheckpointError, match=r"checkpoint-000002.pt cannot be used now \(.*\): try again") as caught:
        run.checkpointer.restore()
    assert "\n" not in str(caught.value) and contents(tmp_path) == before
    assert not hasattr(run.parts["curves"], "cut_to")
    monkeypatch.undo()
    assert restored(tmp_path).values == 3 * [(2, 2.0)]


def test_read_error_names_the_file(tmp_path, monkeypatch):
    class Unreadable(io.FileIO):
        def read(self, size=-1):
            raise OSError(errno.EIO, "Input/output error")

    Run(tmp_path).iterate(1)
    for name, function in (("checkpoint-000001.pt", load_checkpoint), ("files", owned_files)):
        module = "dreamer.training.checkpoint_file" if function is load_checkpoint else "dreamer.files"
        with monkeypatch.context() as patch, pytest.raises((OSError, CheckpointError), match=rf"Errno 5.*{name}'"):
            patch.setattr(f"{module}.open_nofollow", lambda path, mode: Unreadable(path))
            function(tmp_path)


def test_damaged_checkpoints_are_renamed_and_never_used_again(tmp_path, capsys):
    """The file is not used even if it becomes readable again, because later steps and curves have been cut."""
    Run(tmp_path).iterate(1, 2)
    intact = checkpoint(tmp_path, 2).read_bytes()
    for number in (1, 2):
        truncate(checkpoint(tmp_path, 2))
        restored(tmp_path)
        moved_aside = tmp_path / f"checkpoint-000002.pt.damaged-{number}"
        assert iterations(tmp_path) == [1] and f"is now {moved_aside}; resuming" in capsys.readouterr().err
        moved_aside.write_bytes(intact)
        assert restored(tmp_path).values == 3 * [(1, 1.0)]
        restored(tmp_path).iterate(2)
    restored(tmp_path).iterate(3, 4)
    assert iterations(tmp_path) == [4, 3] and len(list(tmp_path.glob("*.damaged-*"))) == 2


# Writing


def test_failed_write_leaves_earlier_checkpoints_intact(tmp_path, full_disk):
    run = Run(tmp_path).iterate(1, 2)
    before, kept = contents(tmp_path), list(run.parts["replay"].kept)
    with full_disk(), pytest.raises(OSError, match="No space left") as caught:
        run.iterate(3)
    assert caught.value.errno == errno.ENOSPC
    assert contents(tmp_path) == before
    assert run.parts["replay"].kept == kept, "both of them may still be needed"
    assert restored(tmp_path).values == 3 * [(2, 2.0)]
    run.checkpointer.write()  # there is space again
    assert iterations(tmp_path) == [3, 2] and restored(tmp_path).values == 3 * [(3, 3.0)]


# States as plain values


def test_copy_to_cpu_gives_plain_values_without_shared_memory():
    tensor, weight = torch.arange(6.0), torch.nn.Parameter(torch.ones(2))
    state = {
        "parts": [{"tensor": tensor[1:3], "parameter": weight}, (1, 2.5, None, "text", True)],
        "array": np.array([[1, 2], [3, 2**63]], np.uint64),
        "number": np.float32(0.5),
        5: {"random": np.random.default_rng(0).bit_generator.state},
    }
    copy = copy_to_cpu(state)
    tensor.zero_(), weight.data.zero_()
    (parts, others), array = copy["parts"], copy["array"]
    assert parts["tensor"].tolist() == [1, 2] and parts["parameter"].tolist() == [1, 1]
    assert type(parts["parameter"]) is torch.Tensor and not parts["parameter"].requires_grad
    assert others == (1, 2.5, None, "text", True) and type(others) is tuple
    assert array == [[1, 2], [3, 2**63]] and copy["number"] == 0.5 and type(copy["number"]) is float
    file = io.BytesIO()
    torch.save(copy, file)
    assert len(file.getvalue()) < 5000, "of a slice only the slice is saved"
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded[5] == copy[5] == {"random": np.random.default_rng(0).bit_generator.state}


Pair = namedtuple("Pair", "one other")


@pytest.mark.parametrize(
    "value", [deque([1]), frozenset([1]), date(2026, 1, 1), Path("x"), Color.RED, np.dtype("f4"), Pair(1, 2), range(3)]
)
def test_values_that_cannot_be_loaded_are_refused_when_saving(value, tmp_path):
    run = Run(tmp_path).iterate(1)
    run.parts["algorithm"].count = [{"inside": (1, value)}]
    expected = rf"^algorithm\['count'\]\['inside'\]: a {type(value).__name__} cannot be saved; let its state_dict give"
    with pytest.raises(CheckpointError, match=expected):
        run.checkpointer(2)
    assert iterations(tmp_path) == [1]


def test_unsavable_state_is_refused_before_the_run_starts(tmp_path):
    run = Run(tmp_path)
    run.parts["algorithm"].count = deque()
    with pytest.raises(CheckpointError, match="a deque cannot be saved"):
        run.checkpointer.restore()


def test_plain_values_of_all_kinds_can_be_loaded(tmp_path):
    run = Run(tmp_path)
    value = {np.int64(3): {1, 2}, (1, "x"): b"bytes", None: 2**80, True: 1 + 2j, "x": np.str_("text")}
    run.parts["algorithm"].state_dict = lambda: value
    run.checkpointer(1)
    assert load_checkpoint(tmp_path)[1]["algorithm"] == value
