"""Which windows are drawn: by episodes, as DreamerV2 does, or the newest ones first, as DreamerV3 does."""

from collections import Counter

import numpy as np
import pytest
import torch

from dreamer.replay.buffer import ReplayBuffer
from dreamer.replay.sampling import EpisodeSampler, OnlineQueue
from dreamer.replay.step import Step
from tests.replay.test_buffer import through_a_file

T = 4


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr("dreamer.replay.buffer.SEGMENT", 16)


def make(folder, capacity=1000, **keywords):
    folder.mkdir(exist_ok=True)
    return ReplayBuffer(folder, capacity, (1,), np.float32, 1, seed=0, **keywords)


def play(buffer, *lengths, finished=True):
    """Episodes of so many steps. The observation is the step's number, the action the episode's, counted on."""
    for length in lengths:
        episode = getattr(buffer, "episodes", 0)
        for place in range(length):
            buffer.add(Step(np.full(1, buffer.end), np.full(1, episode), float(place), place == 0, False, 1))
        buffer.episodes = episode + 1
        if finished:
            buffer.finish_episode()
    return buffer


def counts(values, expected):
    """Of {value: probability}: whether they are what comes, and about as often as it should."""
    found = Counter(values)
    assert set(found) == set(expected)
    for value, probability in expected.items():
        mean = probability * len(values)
        assert abs(found[value] - mean) < 6 * mean**0.5, value


def by_episode(buffer, count=6000):
    """The episodes and the places in them at which windows begin."""
    batch = buffer.sample(count, T)
    assert (batch.action == batch.action[:, :1]).all(), "a window lies in one episode"
    assert (np.diff(batch.observation[..., 0], axis=1) == 1).all()
    return batch.action[:, 0, 0].int().tolist(), batch.reward[:, 0].int().tolist()


def test_episodes_are_equally_likely_whatever_their_length_and_so_are_the_windows_in_them(tmp_path):
    """D1. Those that are too short are left out."""
    buffer = play(make(tmp_path, sampler=EpisodeSampler()), 4, 20, 3, 8)
    episodes, places = by_episode(buffer)
    counts(episodes, dict.fromkeys([0, 1, 3], 1 / 3))
    windows = {(0, 0): 1 / 3, **{(1, p): 1 / 3 / 17 for p in range(17)}, **{(3, p): 1 / 3 / 5 for p in range(5)}}
    counts(list(zip(episodes, places, strict=True)), windows)


def test_start_positions_are_equally_likely_otherwise(tmp_path):
    """D1: by episodes, the longer ones come more often."""
    buffer = play(make(tmp_path), 4, 20, 3, 8)
    counts(buffer.draw(6000, T).tolist(), dict.fromkeys(range(32), 1 / 32))


def test_the_ends_of_episodes_are_more_likely_if_they_are_prioritized(tmp_path):
    """The start is uniform over 17 + 4 numbers, of which the last 5 are the last window."""
    episodes, places = by_episode(play(make(tmp_path, sampler=EpisodeSampler(prioritize_ends=True)), 20))
    counts(places, {**dict.fromkeys(range(16), 1 / 21), 16: 5 / 21})


def test_an_episode_under_way_is_not_sampled(tmp_path):
    buffer = play(make(tmp_path, sampler=EpisodeSampler()), 6)
    play(buffer, 9, finished=False)
    assert set(by_episode(buffer)[0]) == {0} and buffer.longest_window() == 6
    buffer.finish_episode()
    assert set(by_episode(buffer)[0]) == {0, 1} and buffer.longest_window() == 9


def test_an_episode_that_has_begun_to_leave_the_replay_is_not_sampled(tmp_path):
    buffer = play(make(tmp_path, capacity=20, sampler=EpisodeSampler()), 6, 6, 6, 2)
    assert set(by_episode(buffer)[0]) == {0, 1, 2}
    play(buffer, 1)
    assert set(by_episode(buffer)[0]) == {1, 2}
    play(buffer, 30)
    assert buffer.longest_window() == 0, "the episode itself did not fit"
    with pytest.raises(ValueError, match="has 0 steps; expected 4 or more"):
        buffer.draw(1, T)
    play(buffer, 5)
    assert set(by_episode(buffer)[0]) == {6}


@pytest.mark.parametrize("latent_size, first", [(0, 1), (2, 0)])
def test_windows_of_episodes_begin_anew_unless_what_was_before_is_known(latent_size, first, tmp_path):
    buffer = play(make(tmp_path, sampler=EpisodeSampler(), latent_size=latent_size), 10)
    batch = buffer.windows(np.array([3, 5]), T)
    assert batch.is_first.tolist() == [[first, 0, 0, 0]] * 2
    assert not buffer.read([3, 5], T).is_first.any(), "stored as it was"
    assert not play(make(tmp_path / "other"), 10).windows(np.array([3, 5]), T).is_first.any()


def test_episodes_go_on_from_a_state(tmp_path):
    buffer = play(make(tmp_path, sampler=EpisodeSampler()), 6, 9, 7)
    state = through_a_file(buffer.state_dict())
    play(buffer, 8, 8)
    other = make(tmp_path, sampler=EpisodeSampler())
    other.load_state_dict(state)
    assert set(by_episode(other)[0]) == {0, 1, 2}
    play(buffer, 8)
    assert other.sampler.borders.tolist() == [0, 6, 15, 22]
    assert play(other, 5).sampler.borders.tolist() == [0, 6, 15, 22, 27]


# The newest first


def online(folder, capacity=1000, length=T):
    return make(folder, capacity, online=OnlineQueue(length))


def test_each_window_of_new_steps_is_sampled_once_before_others(tmp_path):
    """D2: one for every five steps, the oldest first, at most a batch of them at a time."""
    buffer = play(online(tmp_path), 3, 19)
    assert buffer.draw(3, T).tolist() == [2, 7, 12]
    starts = buffer.draw(3, T)
    assert starts[0] == 17 and set(starts) <= set(range(19))
    counts(buffer.draw(6000, T).tolist(), dict.fromkeys(range(19), 1 / 19))
    play(buffer, 4)
    assert buffer.draw(1, T).tolist() == [22], "of the 26 steps, counted on"
    assert buffer.read([22], T).observation[0, :, 0].tolist() == [22, 23, 24, 25]


def test_which_windows_are_queued_is_as_in_the_released_code(tmp_path):
    """With T = 8 its windows of 9 steps begin at 1, 10, 19, and it learns from all but their first step."""
    queued, online = {}, OnlineQueue(8)
    for end in range(1, 30):
        online.step_added(end)
        for start in online.take(range(end), 1):
            queued[end] = start
    assert queued == {10: 2, 19: 11, 28: 20}


def test_what_is_drawn_with_another_generator_leaves_the_queue_alone(tmp_path):
    buffer = play(online(tmp_path), 11)
    buffer.draw(2, T, np.random.default_rng(0))
    assert buffer.draw(2, T).tolist() == [2, 7]


def test_windows_that_left_the_replay_are_not_sampled_any_more(tmp_path):
    buffer = play(online(tmp_path, capacity=12), 26)
    assert buffer.draw(2, T).tolist() == [17, 22]


def test_the_queue_goes_on_from_a_state(tmp_path):
    buffer = play(online(tmp_path), 13)
    state = through_a_file(buffer.state_dict())
    expected = buffer.draw(9, T)
    play(buffer, 20)
    other = online(tmp_path)
    other.load_state_dict(state)
    assert (other.draw(9, T) == expected).all() and expected[:2].tolist() == [2, 7]
    assert play(other, 3).draw(1, T).tolist() == [12]


def test_sampling_without_either_is_as_it_was(tmp_path):
    """The same numbers from the same generator."""
    buffer, random = play(make(tmp_path, capacity=20), 30), np.random.default_rng(0)
    assert (buffer.draw(50, T) == 10 + random.integers(17, size=50)).all()
    assert isinstance(buffer.sample(2, T).reward, torch.Tensor)
