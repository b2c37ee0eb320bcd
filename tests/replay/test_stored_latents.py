"""Stored latent states. Updates overwrite them, but every version that a checkpoint may need is kept."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer.errors import DamagedError
from dreamer.replay.buffer import ReplayBuffer
from dreamer.replay.step import Step
from tests.replay.test_buffer import saved_and_loaded

F, T = 3, 4


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr("dreamer.replay.buffer.SEGMENT", 4)
    monkeypatch.setattr("dreamer.replay.latents.ROWS", 4)


def make(folder, capacity=100, size=F):
    return ReplayBuffer(folder, capacity, (1,), np.float32, 1, seed=0, latent_size=size)


def fill(buffer, numbers):
    """Add steps with these numbers; the latent state stored with a step is its number."""
    for i in numbers:
        value = np.full(1, i, np.float32)
        buffer.add(Step(value, value, float(i), i == 0, False, 1, np.full(F, i, np.float32)))
    return buffer


def rewrite(buffer, random, updates=1):
    """Overwrite the latents of random windows by random numbers, as updates do."""
    for _ in range(updates):
        starts = buffer.draw(3, T)
        buffer.write_latents(starts, torch.from_numpy(random.random((3, T, F), np.float32)))


def latents(buffer):
    return buffer.read_latents(np.array(buffer.steps)).numpy()


def restored(folder, state, capacity=100):
    """Return a new replay on the same folder with this state."""
    buffer = make(folder, capacity)
    buffer.load_state_dict(saved_and_loaded(state))
    return buffer


def test_sample_returns_the_latent_stored_with_the_first_step(tmp_path):
    buffer = fill(make(tmp_path), range(20))
    batch = buffer.sample(50, T)
    assert batch.latent.shape == (50, F) and batch.latent.dtype == torch.float32
    assert (batch.latent == batch.reward[:, :1]).all()


def test_steps_without_a_latent_store_zeros(tmp_path):
    buffer = make(tmp_path)
    for i in range(6):
        buffer.add(Step(np.ones(1), np.ones(1), 0.0, i == 0, False, 1))
    assert (latents(buffer) == np.zeros((6, F))).all()


def test_write_latents_stores_posteriors_for_the_following_steps(tmp_path):
    """The posterior of step t is stored with step t + 1, also behind the window. If that step does not exist, it is
    dropped."""
    buffer = fill(make(tmp_path), range(10))
    feature = torch.arange(2 * T * F).reshape(2, T, F).float() + 100
    buffer.write_latents(np.array([1, 6]), feature)
    after = latents(buffer)
    assert (after[[0, 1, 6]] == np.array([[0], [1], [6]])).all(), "as they were"
    assert (after[2:6] == feature[0].numpy()).all() and (after[7:10] == feature[1, :3].numpy()).all()
    assert (buffer.read_latents(np.array([3])) == feature[0, 1]).all(), "a window from there starts with this latent"
    assert (buffer.read([0], 10).reward == np.arange(10)).all()


def test_last_of_overlapping_windows_is_stored(tmp_path):
    buffer = fill(make(tmp_path), range(12))
    feature = torch.arange(3).reshape(3, 1, 1).expand(3, T, F) + 100.0
    buffer.write_latents(np.array([2, 4, 2]), feature)
    assert latents(buffer)[:, 0].tolist() == [0, 1, 2, 102, 102, 102, 102, 101, 101, 9, 10, 11]


def test_bfloat16_latents_are_stored_as_float32(tmp_path):
    buffer = fill(make(tmp_path), range(6))
    buffer.write_latents(np.array([0]), torch.full((1, T, F), 0.5, dtype=torch.bfloat16))
    assert (latents(buffer)[1:5] == 0.5).all()


# Saving and restoring


class Run:
    """A replay with the states that a `Checkpointer` keeps: the newest two and the last iteration's."""

    def __init__(self, folder, capacity):
        self.folder, self.capacity = folder, capacity
        folder.mkdir()
        self.buffer = fill(make(folder, capacity), range(10))
        self.written, self.iteration, self.snapshot = [], 0, None

    def iterate(self):
        """Add two steps and make updates that depend only on the iteration's number."""
        self.iteration += 1
        fill(self.buffer, range(self.buffer.end, self.buffer.end + 2))
        rewrite(self.buffer, np.random.default_rng(self.iteration), updates=4)
        self.snapshot = self.iteration, saved_and_loaded(self.buffer.state_dict()), latents(self.buffer)

    def checkpoint(self):
        self.written = [*self.written[-1:], self.snapshot]
        self.buffer.keep([state for _, state, _ in self.written])

    def kill(self):
        """Stop within an iteration and restore the newest checkpoint."""
        fill(self.buffer, range(self.buffer.end, self.buffer.end + 3))
        rewrite(self.buffer, np.random.default_rng(99), updates=7)
        self.iteration, state, _ = self.snapshot = self.written[-1]
        self.buffer = restored(self.folder, state, self.capacity)


@pytest.mark.parametrize("capacity", [100, 14])
def test_killed_and_resumed_run_has_the_latents_of_an_uninterrupted_run(capacity, tmp_path):
    """Updates, checkpoints and kills come in random order; all kept states can be restored."""
    reference, expected = Run(tmp_path / "uninterrupted", capacity), {}
    for iteration in range(1, 26):
        reference.iterate()
        expected[iteration] = reference.snapshot[2]
    run, order = Run(tmp_path / "killed", capacity), np.random.default_rng(0)
    kills = 0
    while run.iteration < 25:
        run.iterate()
        assert (latents(run.buffer) == expected[run.iteration]).all()
        if order.random() < 0.6:
            run.checkpoint()
        if run.written and order.random() < 0.4:
            run.kill()
            kills += 1
        for iteration, state, contents in {entry[0]: entry for entry in [*run.written, run.snapshot]}.values():
            assert (contents == expected[iteration]).all()
            assert (latents(restored(run.folder, state, capacity)) == contents).all()
    assert kills > 5


def test_old_latents_are_not_overwritten_before_keep(tmp_path):
    """The checkpoint before the restored one may still be needed."""
    buffer, random = fill(make(tmp_path), range(10)), np.random.default_rng(0)
    old = buffer.state_dict()
    expected = latents(buffer)
    rewrite(buffer, random, updates=9)
    new = buffer.state_dict()
    buffer = restored(tmp_path, new)
    for _ in range(3):
        rewrite(buffer, random, updates=9)
        buffer.state_dict()
    assert (latents(restored(tmp_path, old)) == expected).all()


def test_latents_changed_since_the_newest_state_are_not_overwritten(tmp_path):
    buffer = fill(make(tmp_path), range(8))
    state = buffer.state_dict()
    buffer.write_latents(np.array([0]), torch.full((1, T, F), 50.0))
    buffer.keep([state])
    buffer.write_latents(np.array([3]), torch.full((1, T, F), 60.0))
    assert latents(buffer)[:, 0].tolist() == [0, 50, 50, 50, 60, 60, 60, 60]


def test_number_of_latent_files_is_bounded(tmp_path):
    """There are at most four versions of each latent: two checkpoints, the newest state and the current one."""
    buffer, random, states = fill(make(tmp_path, 12), range(12)), np.random.default_rng(0), []
    for end in range(13, 200):
        fill(buffer, [end - 1])
        rewrite(buffer, random, updates=6)
        states = [*states[-1:], buffer.state_dict()]
        if end % 3 == 0:
            buffer.keep(states)
    assert len(buffer.latents.files) <= 4 * 12 / 4
    assert len(list((tmp_path / "replay").glob("*.contexts"))) == len(buffer.latents.files)


def test_state_dict_syncs_the_changed_latent_files(tmp_path, monkeypatch):
    synced, sync = [], os.fsync
    buffer = fill(make(tmp_path), range(8))

    def record_sync(file):
        synced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        sync(file)

    monkeypatch.setattr(os, "fsync", record_sync)
    buffer.state_dict()
    assert [name for name in synced if name.endswith("contexts")] == ["00000000.contexts", "00000001.contexts"]
    synced.clear()
    buffer.write_latents(np.array([6]), torch.ones(1, T, F))
    synced.clear()
    buffer.state_dict()
    assert synced == ["00000002.contexts"], "only what changed"
    synced.clear()
    buffer.state_dict()
    assert synced == []


def test_checksums_find_each_changed_byte(tmp_path):
    """A change in any latent of a state is found, a change elsewhere is ignored."""
    buffer, random = fill(make(tmp_path), range(10)), np.random.default_rng(0)
    states = []
    for _ in range(2):
        rewrite(buffer, random, updates=2)
        states.append(saved_and_loaded(buffer.state_dict()))
        buffer.keep(states)
    rewrite(buffer, random, updates=3)
    buffer.state_dict()
    damaged_rows = [[], []]
    for row in range(4 * len(buffer.latents.files)):
        path, place = tmp_path / "replay" / f"{row // 4:08}.contexts", row % 4 * 4 * F + 7
        content = path.read_bytes()
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        for state, rows in zip(states, damaged_rows, strict=True):
            try:
                restored(tmp_path, state)
            except DamagedError as error:
                assert str(error) == f"{path}: its checksum is wrong, this part of the replay is damaged"
                rows.append(row)
        path.write_bytes(content)
    assert (
        damaged_rows == [sorted(state["contexts"]["rows"].tolist()) for state in states]
        and damaged_rows[0] != damaged_rows[1]
    )
    del state["contexts"]["checksums"]  # states of older versions have no checksums
    path.write_bytes(bytes(len(content)))
    checksums = restored(tmp_path, state).state_dict()["contexts"]["checksums"]
    assert len(checksums) == 10 and (checksums != 0).all(), "new states have checksums"


def test_missing_latent_file_is_named(tmp_path):
    state = fill(make(tmp_path), range(9)).state_dict()
    (tmp_path / "replay" / "00000001.contexts").unlink()
    with pytest.raises(DamagedError, match="replay/00000001.contexts: .*missing or damaged"):
        restored(tmp_path, state)


def test_full_disk_names_the_file_and_keeps_the_latents(tmp_path, monkeypatch):
    """The file is named and deleted, and the stored latents stay."""
    buffer = fill(make(tmp_path), range(8))
    buffer.state_dict()

    def full(descriptor, offset, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space left on device.*replay/00000002.contexts"):
            buffer.write_latents(np.array([0]), torch.ones(1, T, F))
    assert (latents(buffer)[:, 0] == np.arange(8)).all()
    assert not (tmp_path / "replay" / "00000002.contexts").exists()


def test_files_not_created_by_the_run_are_left_alone(tmp_path):
    buffer = fill(make(tmp_path), range(8))
    buffer.state_dict()
    (tmp_path / "replay" / "00000002.contexts").write_text("mine")
    with pytest.raises(FileExistsError, match="00000002.contexts is not the run's own"):
        buffer.write_latents(np.array([0]), torch.ones(1, T, F))


def test_replay_without_latents_writes_no_latent_files(tmp_path):
    buffer = make(tmp_path, size=0)
    for i in range(10):
        buffer.add(Step(np.ones(1), np.ones(1), 0.0, i == 0, False, 1))
    assert not list((tmp_path / "replay").glob("*.contexts"))
    assert buffer.sample(5, T).latent.shape == (5, 0)
    old = {
        name: buffer.state_dict()[name] for name in ("end", "random", "checksums")
    }  # format of states without latents
    other = make(tmp_path, size=0)
    other.load_state_dict(saved_and_loaded(old))
    assert (other.draw(50, T) == buffer.draw(50, T)).all()
