from collections import Counter

import numpy as np
import pytest

from dreamer.utils.buffer import BLOCK, ReplayBuffer
from dreamer.utils.episode import Step


def numbered(capacity, steps, episode_length=1000, seed=0):
    """A replay whose observation, action and reward at a step are the step's number."""
    buffer = ReplayBuffer(capacity, (1,), np.float32, 1, seed)
    for i in range(steps):
        place = i % episode_length
        value = np.array([i], np.float32)
        buffer.add(Step(value, value, float(i), place == 0, place == episode_length - 1, 1))
    return buffer


@pytest.mark.parametrize(
    ("steps", "valid_starts"),
    [(7, range(4)), (10, range(7)), (13, range(3, 10)), (20, range(10, 17)), (25, range(15, 22))],
)
def test_every_valid_start_and_no_other(steps, valid_starts):
    """Before the ring of 10 wraps, when it is just full, and after: windows of 4 within the newest 10 steps."""
    buffer = numbered(capacity=10, steps=steps)
    batch = buffer.sample(4000, 4)
    windows = batch.observation[..., 0].numpy()
    assert (np.diff(windows, axis=1) == 1).all(), "a window is consecutive: it never crosses the write head"
    counts = Counter(windows[:, 0].astype(int).tolist())
    assert set(counts) == set(valid_starts)
    expected = 4000 / len(valid_starts)
    assert all(abs(count - expected) < 6 * expected**0.5 for count in counts.values()), "uniform over the starts"


def test_all_parts_of_a_step_stay_together_and_flags_mark_the_episodes():
    batch = numbered(capacity=100, steps=60, episode_length=7).sample(500, 9)
    number = batch.observation[..., 0]
    assert (batch.action[..., 0] == number).all() and (batch.reward == number).all()
    assert (batch.is_first == (number % 7 == 0)).all(), "windows cross from one episode into the next"
    assert (batch.is_terminal == (number % 7 == 6)).all()
    assert batch.is_first.shape == (500, 9) and batch.action.shape == (500, 9, 1)


def test_last_step_of_the_replay_is_sampled():
    assert numbered(capacity=50, steps=20).sample(2000, 5).reward.max() == 19


def test_too_few_steps():
    with pytest.raises(ValueError, match="3 steps are stored, a window of 4"):
        numbered(capacity=10, steps=3).sample(1, 4)


def test_same_seed_same_windows():
    first, same, other = (numbered(100, 90, seed=seed).sample(20, 5).reward for seed in (1, 1, 2))
    assert (first == same).all() and (first != other).any()


def test_a_sample_is_a_copy():
    buffer = numbered(capacity=10, steps=10)
    batch = buffer.sample(8, 4)
    before = batch.reward.clone()
    for i in range(100, 110):
        buffer.add(Step(np.array([i]), np.array([i]), i, False, False, 1))
    assert (batch.reward == before).all()


def test_pixels_are_stored_once_as_bytes_and_memory_grows_with_what_is_stored():
    buffer = ReplayBuffer(1_000_000, (3, 64, 64), np.uint8, 6, seed=0)
    frame = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    stored = [sum(array.nbytes for array in buffer.storage)]
    for i in range(BLOCK + 1):
        buffer.add(Step(frame, np.zeros(6, np.float32), 0.0, i == 0, False, 1))
        stored.append(sum(array.nbytes for array in buffer.storage))
    assert stored[0] == 0 and stored[1] == stored[BLOCK] == stored[BLOCK + 1] / 2
    assert stored[1] / BLOCK <= 12.5 * 1024
    batch = buffer.sample(2, 3)
    assert batch.observation.numpy().dtype == np.uint8 and (batch.observation.numpy() == frame).all()


def test_storage_never_exceeds_the_capacity():
    buffer = numbered(capacity=BLOCK + 10, steps=BLOCK + 50)
    assert len(buffer.storage.reward) == BLOCK + 10 and len(buffer) == BLOCK + 10
    assert buffer.sample(3000, 2).reward.min() == 40
