"""Sampling of windows: by episodes, as in DreamerV2, and newest first, as in DreamerV3."""

from collections import Counter

import numpy as np
import pytest
import torch

from dreamer.replay.buffer import ReplayBuffer
from dreamer.replay.sampling import EpisodeSampler, OnlineQueue
from dreamer.replay.step import Step
from tests.replay.test_buffer import saved_and_loaded

T = 4


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr("dreamer.replay.buffer.SEGMENT", 16)


def make(folder, capacity=1000, **keywords):
    folder.mkdir(exist_ok=True)
    return ReplayBuffer(folder, capacity, (1,), np.float32, 1, seed=0, **keywords)


def play(buffer, *lengths, finished=True):
    """Add episodes of these lengths. The observation is the step's number and the action is the episode's number."""
    for length in lengths:
        episode = getattr(buffer, "episodes", 0)
        for place in range(length):
            buffer.add(Step(np.full(1, buffer.end), np.full(1, episode), float(place), place == 0, False, 1))
        buffer.episodes = episode + 1
        if finished:
            buffer.finish_episode()
    return buffer


def assert_frequencies(values, expected):
    """Assert that exactly the expected values occur, about as often as their probabilities say."""
    counted = Counter(values)
    assert set(counted) == set(expected)
    for value, probability in expected.items():
        mean = probability * len(values)
        assert abs(counted[value] - mean) < 6 * mean**0.5, value


def sampled_episodes_and_places(buffer, count=6000):
    """Sample windows; return their episodes and their start positions within these."""
    batch = buffer.sample(count, T)
    assert (batch.action == batch.action[:, :1]).all(), "a window lies in one episode"
    assert (np.diff(batch.observation[..., 0], axis=1) == 1).all()
    return batch.action[:, 0, 0].int().tolist(), batch.reward[:, 0].int().tolist()


def test_episodes_are_equally_likely_and_so_are_the_windows_within_each(tmp_path):
    """Episodes that are shorter than a window are left out."""
    buffer = play(make(tmp_path, sampler=EpisodeSampler()), 4, 20, 3, 8)
    episodes, places = sampled_episodes_and_places(buffer)
    assert_frequencies(episodes, dict.fromkeys([0, 1, 3], 1 / 3))
    windows = {(0, 0): 1 / 3, **{(1, p): 1 / 3 / 17 for p in range(17)}, **{(3, p): 1 / 3 / 5 for p in range(5)}}
    assert_frequencies(list(zip(episodes, places, strict=True)), windows)


def test_start_positions_are_equally_likely_by_default(tmp_path):
    """So longer episodes are sampled more often."""
    buffer = play(make(tmp_path), 4, 20, 3, 8)
    assert_frequencies(buffer.draw(6000, T).tolist(), dict.fromkeys(range(32), 1 / 32))


def test_prioritize_ends_makes_last_windows_more_likely(tmp_path):
    """The start is uniform over 17 + 4 numbers; the last 5 all mean the last window."""
    episodes, places = sampled_episodes_and_places(
        play(make(tmp_path, sampler=EpisodeSampler(prioritize_ends=True)), 20)
    )
    assert_frequencies(places, {**dict.fromkeys(range(16), 1 / 21), 16: 5 / 21})


def test_unfinished_episodes_are_not_sampled(tmp_path):
    buffer = play(make(tmp_path, sampler=EpisodeSampler()), 6)
    play(buffer, 9, finished=False)
    assert set(sampled_episodes_and_places(buffer)[0]) == {0} and buffer.longest_window() == 6
    buffer.finish_episode()
    assert set(sampled_episodes_and_places(buffer)[0]) == {0, 1} and buffer.longest_window() == 9


def test_partly_overwritten_episodes_are_not_sampled(tmp_path):
    buffer = play(make(tmp_path, capacity=20, sampler=EpisodeSampler()), 6, 6, 6, 2)
    assert set(sampled_episodes_and_places(buffer)[0]) == {0, 1, 2}
    play(buffer, 1)
    assert set(sampled_episodes_and_places(buffer)[0]) == {1, 2}
    play(buffer, 30)
    assert buffer.longest_window() == 0, "the episode itself did not fit"
    with pytest.raises(ValueError, match="has 0 steps; expected 4 or more"):
        buffer.draw(1, T)
    play(buffer, 5)
    assert set(sampled_episodes_and_places(buffer)[0]) == {6}


@pytest.mark.parametrize("latent_size, first", [(0, 1), (2, 0)])
def test_windows_of_episodes_set_is_first_unless_latents_are_stored(latent_size, first, tmp_path):
    buffer = play(make(tmp_path, sampler=EpisodeSampler(), latent_size=latent_size), 10)
    batch = buffer.windows(np.array([3, 5]), T)
    assert batch.is_first.tolist() == [[first, 0, 0, 0]] * 2
    assert not buffer.read([3, 5], T).is_first.any(), "stored as it was"
    assert not play(make(tmp_path / "other"), 10).windows(np.array([3, 5]), T).is_first.any()


def test_episode_sampler_is_restored_from_a_state(tmp_path):
    buffer = play(make(tmp_path, sampler=EpisodeSampler()), 6, 9, 7)
    state = saved_and_loaded(buffer.state_dict())
    play(buffer, 8, 8)
    other = make(tmp_path, sampler=EpisodeSampler())
    other.load_state_dict(state)
    assert set(sampled_episodes_and_places(other)[0]) == {0, 1, 2}
    play(buffer, 8)
    assert other.sampler.borders.tolist() == [0, 6, 15, 22]
    assert play(other, 5).sampler.borders.tolist() == [0, 6, 15, 22, 27]


# Newest windows first


def make_online(folder, capacity=1000, length=T):
    return make(folder, capacity, online=OnlineQueue(length))


def test_online_queue_samples_each_new_window_once_before_others(tmp_path):
    """Every fifth step queues a window. A draw takes the oldest windows first, at most a batch at a time."""
    buffer = play(make_online(tmp_path), 3, 19)
    assert buffer.draw(3, T).tolist() == [2, 7, 12]
    starts = buffer.draw(3, T)
    assert starts[0] == 17 and set(starts) <= set(range(19))
    assert_frequencies(buffer.draw(6000, T).tolist(), dict.fromkeys(range(19), 1 / 19))
    play(buffer, 4)
    assert buffer.draw(1, T).tolist() == [22], "of the 26 steps, counted on"
    assert buffer.read([22], T).observation[0, :, 0].tolist() == [22, 23, 24, 25]


def test_which_windows_are_queued_matches_the_authors_code(tmp_path):
    """With T = 8 the authors' windows of 9 steps begin at 1, 10, 19; all but their first step are learned from."""
    queued, queue = {}, OnlineQueue(8)
    for end in range(1, 30):
        queue.step_added(end)
        for start in queue.take(range(end), 1):
            queued[end] = start
    assert queued == {10: 2, 19: 11, 28: 20}


def test_drawing_with_another_generator_does_not_change_the_queue(tmp_path):
    buffer = play(make_online(tmp_path), 11)
    buffer.draw(2, T, np.random.default_rng(0))
    assert buffer.draw(2, T).tolist() == [2, 7]


def test_overwritten_windows_leave_the_online_queue(tmp_path):
    buffer = play(make_online(tmp_path, capacity=12), 26)
    assert buffer.draw(2, T).tolist() == [17, 22]


def test_online_queue_is_restored_from_a_state(tmp_path):
    buffer = play(make_online(tmp_path), 13)
    state = saved_and_loaded(buffer.state_dict())
    expected = buffer.draw(9, T)
    play(buffer, 20)
    other = make_online(tmp_path)
    other.load_state_dict(state)
    assert (other.draw(9, T) == expected).all() and expected[:2].tolist() == [2, 7]
    assert play(other, 3).draw(1, T).tolist() == [12]


def test_default_sampling_draws_uniform_integers(tmp_path):
    """The starts are those of `Generator.integers` with the same seed."""
    buffer, random = play(make(tmp_path, capacity=20), 30), np.random.default_rng(0)
    assert (buffer.draw(50, T) == 10 + random.integers(17, size=50)).all()
    assert isinstance(buffer.sample(2, T).reward, torch.Tensor)
