import random

import numpy as np
import pytest
import torch

from dreamer.training.checkpoint_file import copy_to_cpu
from dreamer.training.seeding import GlobalRandomness, seed_everything, seeded_randomness


def draws():
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()]


def test_seed_everything_seeds_python_numpy_and_torch():
    seed_everything(3)
    first, second = draws(), draws()
    seed_everything(3)
    assert draws() == first
    seed_everything(4)
    assert not set(draws()) & {*first, *second}


def test_random_state_is_restored(tmp_path):
    """The state is saved between two numbers of a pair that Python and NumPy draw for a normal distribution."""
    seed_everything(3)
    draws()
    torch.save(copy_to_cpu(GlobalRandomness().state_dict()), tmp_path / "state")
    expected = draws(), draws()
    seed_everything(4)
    draws()
    GlobalRandomness().load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert (draws(), draws()) == expected


def test_seeded_randomness_depends_on_its_seeds_and_restores_the_state():
    """The numbers depend on all seeds and on nothing else; the old state is restored even after an error."""
    seed_everything(3)
    expected = draws()
    drawn = []
    for seeds in ((1, 2), (1, 2), (1, 3), (2, 2)):
        seed_everything(3)
        with pytest.raises(KeyError), seeded_randomness(*seeds):
            drawn.append(draws())
            raise KeyError
        assert draws() == expected
    assert drawn[0] == drawn[1] and len({number for row in drawn for number in row}) == 3 * len(expected)


def test_gpu_states_are_restored_if_the_number_of_gpus_matches(monkeypatch):
    restored_states = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: ["first", "second"])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored_states.append)
    state = GlobalRandomness().state_dict()
    GlobalRandomness().load_state_dict(state)
    GlobalRandomness().load_state_dict(state | {"cuda": []})
    assert restored_states == [["first", "second"]]


def test_uninitialized_gpu_is_not_touched(monkeypatch):
    """Reading a GPU's random state would initialize CUDA, which takes half a gigabyte."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: pytest.fail("asked"))
    with seeded_randomness(1):
        pass
    assert GlobalRandomness().state_dict()["cuda"] == []
