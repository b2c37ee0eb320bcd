import errno
import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer.errors import DamagedError
from dreamer.files import claim
from dreamer.replay.buffer import ReplayBuffer
from dreamer.replay.mapped import MappedFiles
from dreamer.replay.step import Step


@pytest.fixture(params=[3, 4096])
def any_segment(request, monkeypatch):
    """Set the steps per file: 3, so that a window spans three files, or 4096, so that one file holds all steps."""
    monkeypatch.setattr("dreamer.replay.buffer.SEGMENT", request.param)


@pytest.fixture
def segment_of_4(monkeypatch):
    monkeypatch.setattr("dreamer.replay.buffer.SEGMENT", 4)


def make(folder, capacity, seed=0):
    return ReplayBuffer(folder, capacity, (1,), np.float32, 1, seed)


def fill(buffer, numbers, episode_length=1000):
    """Add steps whose observation, action and reward are these numbers."""
    for i in numbers:
        value, place = np.array([i], np.float32), i % episode_length
        buffer.add(Step(value, value, float(i), place == 0, place == episode_length - 1, 1))
    return buffer


def numbered(folder, capacity, steps, episode_length=1000, seed=0):
    """Return a replay in which observation, action and reward of a step are the step's number."""
    return fill(make(folder, capacity, seed), range(steps), episode_length)


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def restored(folder, capacity, state):
    """Return a new replay on the same folder with this state, as after a crash."""
    buffer = make(folder, capacity, seed=99)
    buffer.load_state_dict(state)
    return buffer


def stored_rewards(buffer):
    """Return the rewards of all stored steps, in order."""
    return buffer.read([buffer.start], len(buffer)).reward[0].tolist()


def files(folder):
    return sorted(int(path.stem) for path in (folder / "replay").iterdir())


@pytest.mark.parametrize(
    ("steps", "valid_starts"),
    [(7, range(4)), (10, range(7)), (13, range(3, 10)), (20, range(10, 17)), (25, range(15, 22))],
)
def test_samples_are_uniform_over_all_valid_starts(steps, valid_starts, tmp_path, any_segment):
    """Windows of 4 lie within the newest 10 steps, with fewer, exactly and more than 10 steps added."""
    batch = numbered(tmp_path, capacity=10, steps=steps).sample(4000, 4)
    windows = batch.observation[..., 0].numpy()
    assert (np.diff(windows, axis=1) == 1).all(), "a window is consecutive"
    counts = Counter(windows[:, 0].astype(int).tolist())
    assert set(counts) == set(valid_starts)
    expected = 4000 / len(valid_starts)
    assert all(abs(count - expected) < 6 * expected**0.5 for count in counts.values()), "uniform over the starts"


def test_sampled_steps_are_complete_and_flags_mark_the_episodes(tmp_path, any_segment):
    batch = numbered(tmp_path, capacity=100, steps=60, episode_length=7).sample(500, 9)
    error_number = batch.observation[..., 0]
    assert (batch.action[..., 0] == error_number).all() and (batch.reward == error_number).all()
    assert (batch.is_first == (error_number % 7 == 0)).all(), "windows cross from one episode into the next"
    assert (batch.is_terminal == (error_number % 7 == 6)).all()
    assert batch.is_first.shape == (500, 9) and batch.action.shape == (500, 9, 1)
    assert all(part.dtype == torch.float32 for part in batch)


def test_read_returns_windows_of_any_length_from_any_step(tmp_path, segment_of_4):
    """Windows lie within a file, end at its border, cross it, or span several files."""
    buffer = numbered(tmp_path, capacity=100, steps=21)
    for length in range(1, 14):
        starts = range(21 - length + 1)
        assert (buffer.read(starts, length).reward == np.add.outer(starts, range(length))).all()


def test_sampling_too_few_steps_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="has 3 steps; expected 4 or more"):
        numbered(tmp_path, capacity=10, steps=3).sample(1, 4)


def test_same_seed_samples_the_same_windows(tmp_path):
    buffers = []
    for name, seed in (("first", 1), ("same", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        buffers.append(numbered(tmp_path / name, 100, 90, seed=seed))
    first, same, other = (buffer.sample(20, 5).reward for buffer in buffers)
    assert (first == same).all() and (first != other).any()


def test_a_sample_is_a_copy(tmp_path, segment_of_4):
    buffer = numbered(tmp_path, capacity=10, steps=10)
    batch, state = buffer.sample(8, 4), buffer.state_dict()
    before = batch.reward.clone()
    fill(buffer, range(100, 110))
    buffer.load_state_dict(state)
    fill(buffer, range(200, 210))
    batch.reward[:] += 1
    assert (batch.reward == before + 1).all() and stored_rewards(buffer) == list(range(200, 210))


def test_pixels_are_stored_once_as_uint8(tmp_path, monkeypatch):
    """Disk space is reserved file by file as the replay grows."""
    monkeypatch.setattr("dreamer.replay.buffer.SEGMENT", 16)
    buffer = ReplayBuffer(tmp_path, 1_000_000, (3, 64, 64), np.uint8, 6, seed=0)
    frame = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    stored = [0]
    for i in range(17):
        buffer.add(Step(frame, np.zeros(6, np.float32), 0.0, i == 0, False, 1))
        stored.append(sum(path.stat().st_size for path in (tmp_path / "replay").iterdir()))
    assert stored[1] == stored[16] == stored[17] / 2
    assert stored[1] / 16 <= 12.5 * 1024
    batch = buffer.sample(2, 3)
    assert batch.observation.numpy().dtype == np.uint8 and (batch.observation.numpy() == frame).all()


# Saving and restoring


@pytest.mark.parametrize("steps", [7, 8, 9, 30])
def test_restored_buffer_samples_the_same_windows(steps, tmp_path, segment_of_4):
    """It holds the same steps and then draws the same windows."""
    buffer = numbered(tmp_path, capacity=12, steps=steps)
    buffer.sample(5, 3)
    other = restored(tmp_path, 12, saved_and_loaded(buffer.state_dict()))
    assert (len(other), other.end) == (len(buffer), steps)
    assert stored_rewards(other) == stored_rewards(buffer) == list(range(max(0, steps - 12), steps))
    assert all((other.sample(20, 3).reward == buffer.sample(20, 3).reward).all() for _ in range(3))
    fill(other, range(steps, steps + 20))
    assert stored_rewards(other) == list(range(steps + 8, steps + 20))


@pytest.mark.parametrize("end", [8, 10])
def test_restored_buffer_overwrites_later_steps(end, tmp_path, segment_of_4):
    buffer = numbered(tmp_path, capacity=100, steps=end)
    state = buffer.state_dict()
    fill(buffer, range(end, 21))
    other = restored(tmp_path, 100, state)
    assert stored_rewards(other) == list(range(end))
    fill(other, range(100, 107))
    assert stored_rewards(other) == [*range(end), *range(100, 107)]
    assert stored_rewards(restored(tmp_path, 100, other.state_dict())) == stored_rewards(other)


def test_full_replay_keeps_the_steps_of_the_last_state(tmp_path, segment_of_4):
    """The state can be restored whatever number of steps was added after it."""
    buffer = numbered(tmp_path, capacity=10, steps=25)
    state = buffer.state_dict()
    for end in range(26, 60):
        fill(buffer, [end - 1])
        assert (buffer.read([15], 10).reward == np.arange(15, 25)).all()
    assert stored_rewards(restored(tmp_path, 10, state)) == list(range(15, 25))


@pytest.mark.parametrize(
    ("end", "kept"), [(14, [2, 3, 4]), (13, [1, 2, 3, 4]), (15, [2, 3, 4]), (6, [0, 1, 3, 4]), (20, [3, 4])]
)
def test_keep_deletes_exactly_the_files_that_no_state_needs(end, kept, tmp_path, segment_of_4):
    buffer = numbered(tmp_path, capacity=6, steps=end)
    state = buffer.state_dict()
    fill(buffer, range(end, 20))
    newer = buffer.state_dict()
    buffer.keep([state])
    assert files(tmp_path) == kept
    assert set(buffer.segments) == set(kept), "what is deleted takes no disk only once it is unmapped"
    assert stored_rewards(buffer) == list(range(14, 20)) and buffer.sample(3, 6).reward.max() == 19
    assert stored_rewards(restored(tmp_path, 6, newer)) == list(range(14, 20))
    assert stored_rewards(restored(tmp_path, 6, state)) == list(range(max(0, end - 6), end))


def test_keep_deletes_files_from_before_a_crash(tmp_path, segment_of_4):
    """Files that the restored state does not need are not opened."""
    state = numbered(tmp_path, capacity=6, steps=20).state_dict()
    buffer = restored(tmp_path, 6, state)
    assert files(tmp_path) == [2, 3, 4] and set(buffer.segments) == {3, 4}
    buffer.keep([state])
    assert files(tmp_path) == [3, 4]


def test_new_replay_overwrites_old_files(tmp_path, segment_of_4):
    """This happens after a crash before the first checkpoint."""
    numbered(tmp_path, capacity=100, steps=20)
    assert stored_rewards(fill(make(tmp_path, 100), range(50, 59))) == list(range(50, 59))


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: os.truncate(path, 20)])
def test_missing_or_truncated_files_are_named(damage, tmp_path, segment_of_4):
    state = numbered(tmp_path, capacity=6, steps=20).state_dict()
    damage(tmp_path / "replay" / "00000002.steps")
    restored(tmp_path, 6, state)  # the state does not need this file
    damage(tmp_path / "replay" / "00000003.steps")
    with pytest.raises(DamagedError, match="replay/00000003.steps: .*missing or damaged") as caught:
        restored(tmp_path, 6, state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", [18, 20])
def test_checksums_find_each_changed_byte(end, tmp_path, segment_of_4):
    """A change in any step of the state is found, a change elsewhere is ignored."""
    buffer = numbered(tmp_path, capacity=6, steps=13)
    buffer.state_dict()
    fill(buffer, range(13, end)).state_dict()
    state = saved_and_loaded(fill(buffer, range(end, end)).state_dict())
    fill(buffer, range(end, 30))
    damaged_steps = []
    for step in range(12, 30):
        path, place = tmp_path / "replay" / f"{step // 4:08}.steps", step % 4 * buffer.step_type.itemsize + 7
        content = path.read_bytes()
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        try:
            restored(tmp_path, 6, state)
        except DamagedError as error:
            assert str(error) == f"{path}: its checksum is wrong, this part of the replay is damaged"
            damaged_steps.append(step)
        path.write_bytes(content)
    assert damaged_steps == list(range((end - 6) // 4 * 4, end))
    del state["checksums"]  # states of older versions have no checksums
    path.write_bytes(bytes(len(content)))
    assert stored_rewards(restored(tmp_path, 6, state)) == list(range(end - 6, end))


def test_files_not_created_by_the_run_are_left_alone(tmp_path, segment_of_4):
    state = numbered(tmp_path, capacity=6, steps=13).state_dict()
    others = {"notes.steps", "._00000000.steps", "00000000 copy.steps", "0.steps", "00000009.steps"}
    for name in others:
        (tmp_path / "replay" / name).write_text(name)
    buffer = fill(restored(tmp_path, 6, state), range(13, 36))
    buffer.keep([buffer.state_dict()])
    with pytest.raises(FileExistsError, match="replay/00000009.steps is not the run's own"):
        fill(buffer, [36])
    assert {path.name for path in (tmp_path / "replay").iterdir()} == others | {"00000007.steps", "00000008.steps"}
    assert all((tmp_path / "replay" / name).read_text() == name for name in others)


def test_full_disk_names_the_file_and_keeps_the_stored_steps(tmp_path, monkeypatch, segment_of_4):
    """The file is named and deleted, and the stored steps stay usable."""
    buffer = numbered(tmp_path, capacity=100, steps=8)

    def full(descriptor, offset, size):
        os.write(descriptor, b"some")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space left on device.*replay/00000002.steps") as caught:
            fill(buffer, [8])
    assert caught.value.errno == errno.ENOSPC
    assert files(tmp_path) == [0, 1] and stored_rewards(buffer) == list(range(8))
    assert buffer.sample(4, 8).reward.max() == 7 and buffer.state_dict()["end"] == 8
    assert stored_rewards(fill(buffer, [8, 9])) == list(range(10))


def unmappable(path, **_):
    raise RuntimeError(f"unable to mmap 80 bytes from file <{path}>: Cannot allocate memory (12)")


class UnreadableFile(io.FileIO):
    def read(self, size=-1):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


FAULTS = [
    ("torch.from_file", unmappable, errno.ENOMEM),
    ("dreamer.replay.mapped.open_nofollow", lambda path, mode: UnreadableFile(path), errno.EIO),
]


@pytest.mark.parametrize(("name", "fault", "error_number"), FAULTS)
def test_read_errors_name_the_file_and_are_not_reported_as_damage(name, fault, error_number, tmp_path, monkeypatch):
    state = numbered(tmp_path, capacity=6, steps=8).state_dict()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="replay/00000000.steps") as caught:
        patch.setattr(name, fault)
        restored(tmp_path, 6, state)
    assert caught.value.errno == error_number and caught.value.strerror == os.strerror(error_number)
    assert stored_rewards(restored(tmp_path, 6, state)) == list(range(2, 8))


@pytest.mark.parametrize(
    "message", ["unable to mmap 80 bytes from file <x>: No space left on device (28)", "no number"]
)
def test_file_that_cannot_be_mapped_is_named_and_deleted(message, tmp_path, monkeypatch, segment_of_4):
    def fail(*arguments, **keywords):
        raise RuntimeError(message)

    buffer = numbered(tmp_path, capacity=100, steps=8)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="replay/00000002.steps") as caught:
        patch.setattr(torch, "from_file", fail)
        fill(buffer, [8])
    assert caught.value.errno == (errno.ENOSPC if "28" in message else errno.EIO)
    assert files(tmp_path) == [0, 1] and stored_rewards(fill(buffer, [8])) == list(range(9))


def test_symbolic_links_are_not_followed(tmp_path):
    """A link is refused even if the run's list of files names it."""
    mapped, precious = MappedFiles(tmp_path / "replay", "steps", 4, np.float32), tmp_path / "precious"
    mapped.folder.mkdir()
    precious.write_bytes(b"precious content")
    claim(tmp_path, "replay/00000000.steps")
    for act in (mapped.create, lambda error_number: mapped.open([error_number]), mapped.fill_holes):
        mapped.path(0).unlink(missing_ok=True)
        mapped.path(0).symlink_to(precious)
        with pytest.raises(OSError, match="replay/00000000.steps"):
            act(0)
    assert precious.read_bytes() == b"precious content"


def test_space_for_a_whole_file_is_reserved_when_it_is_created(tmp_path, monkeypatch, segment_of_4):
    reserved = []
    reserve = os.posix_fallocate
    monkeypatch.setattr(os, "posix_fallocate", lambda *arguments: reserved.append(arguments[1:]) or reserve(*arguments))
    numbered(tmp_path, capacity=100, steps=5)
    assert reserved == 2 * [(0, 4 * 20)]


def test_state_dict_syncs_the_changed_files(tmp_path, monkeypatch, segment_of_4):
    synced, sync = [], os.fsync
    buffer = numbered(tmp_path, capacity=100, steps=10)

    def record_sync(file):
        synced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        sync(file)

    monkeypatch.setattr(os, "fsync", record_sync)
    buffer.state_dict()
    assert synced == ["00000000.steps", "00000001.steps", "00000002.steps"]
    fill(buffer, range(10, 14))
    synced.clear()
    state = buffer.state_dict()
    assert synced == ["00000002.steps", "00000003.steps"], "only what came since"
    parts = [np.fromfile(path, buffer.step_type) for path in sorted((tmp_path / "replay").iterdir())]
    assert np.concatenate(parts)["reward"][:14].tolist() == list(range(14))
    synced.clear()
    fill(restored(tmp_path, 100, state), range(14, 15)).state_dict()
    assert synced == ["00000003.steps"]


def test_files_between_checkpoints_stay_close_to_the_capacity(tmp_path, segment_of_4):
    """Kept are the sampled steps, those of the newest state, and those passed to `keep`."""
    buffer = numbered(tmp_path, capacity=6, steps=30)
    assert files(tmp_path) == [5, 6, 7]
    state = fill(buffer, range(30, 40)).state_dict()
    buffer.keep([state])
    newest = fill(buffer, range(40, 60)).state_dict()
    fill(buffer, range(60, 90))
    assert files(tmp_path) == [8, 9, 13, 14, 20, 21, 22]
    assert stored_rewards(restored(tmp_path, 6, newest)) == list(range(54, 60))
    other = restored(tmp_path, 6, state)
    assert stored_rewards(other) == list(range(34, 40))
    fill(other, range(40, 60))
    assert files(tmp_path) == [8, 9, 10, 11, 12, 13, 14, 20, 21, 22], "other states may exist, so all files stay"


def test_mapped_files_hold_no_descriptor(tmp_path, segment_of_4):
    before = len(os.listdir("/proc/self/fd"))
    buffer = numbered(tmp_path, capacity=100, steps=60)
    assert len(buffer.segments) == 15 and len(os.listdir("/proc/self/fd")) == before


def test_holes_of_a_copied_file_are_filled_on_load(tmp_path, monkeypatch, segment_of_4):
    state = numbered(tmp_path, capacity=100, steps=6).state_dict()
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        restored(tmp_path, 100, state)


def test_windows_are_read_into_given_memory(tmp_path):
    allocated = []

    def empty(shape, dtype):
        allocated.append(np.empty(shape, dtype))
        return allocated[-1]

    buffer = numbered(tmp_path, capacity=20, steps=20)
    windows, own_memory = (buffer.windows(np.array([3, 5]), 4, *memory) for memory in ([empty], []))
    assert {part.data_ptr() for part in windows if part.numel()} == {
        part.ctypes.data for part in allocated if part.size
    }
    torch.testing.assert_close(windows, own_memory)


def test_samples_are_aligned_in_memory(tmp_path):
    """Without alignment, matrix products would round differently depending on the address."""
    buffer = ReplayBuffer(tmp_path, 100, (5,), np.float32, 3, seed=0)
    for error_number in range(20):
        buffer.add(Step(np.full(5, error_number, np.float32), np.zeros(3, np.float32), 0.0, False, False, 1))
    kept = [buffer.sample(3, 7) for _ in range(20)]
    assert all(part.data_ptr() % 64 == 0 for batch in kept for part in batch)
