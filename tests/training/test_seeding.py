import random

import numpy as np
import pytest
import torch

from dreamer.training.checkpoint_file import copy_to_cpu
from dreamer.training.seeding import GlobalRandomness, seed_everything, seeded_randomness


def draws():
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()]


def test_seeds_reach_everything():
    seed_everything(3)
    first, second = draws(), draws()
    seed_everything(3)
    assert draws() == first
    seed_everything(4)
    assert not set(draws()) & {*first, *second}


def test_goes_on_where_it_was_saved(tmp_path):
    """Between two numbers of a pair, which Python and NumPy draw for a normal distribution."""
    seed_everything(3)
    draws()
    torch.save(copy_to_cpu(GlobalRandomness().state_dict()), tmp_path / "state")
    expected = draws(), draws()
    seed_everything(4)
    draws()
    GlobalRandomness().load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert (draws(), draws()) == expected


def test_random_numbers_of_ones_own():
    """They follow from what is given alone, all of it, and leave no trace, not even when something fails."""
    seed_everything(3)
    expected = draws()
    own = []
    for seeds in ((1, 2), (1, 2), (1, 3), (2, 2)):
        seed_everything(3)
        with pytest.raises(KeyError), seeded_randomness(*seeds):
            own.append(draws())
            raise KeyError
        assert draws() == expected
    assert own[0] == own[1] and len({number for row in own for number in row}) == 3 * len(expected)


def test_gpus_are_brought_back_if_there_are_as_many(monkeypatch):
    brought_back = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: ["first", "second"])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", brought_back.append)
    state = GlobalRandomness().state_dict()
    GlobalRandomness().load_state_dict(state)
    GlobalRandomness().load_state_dict(state | {"cuda": []})
    assert brought_back == [["first", "second"]]


def test_a_gpu_that_nobody_uses_is_left_alone(monkeypatch):
    """Such as that of a process which evaluates on the CPU: to ask for its state would take half a gigabyte of it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: pytest.fail("asked"))
    with seeded_randomness(1):
        pass
    assert GlobalRandomness().state_dict()["cuda"] == []
