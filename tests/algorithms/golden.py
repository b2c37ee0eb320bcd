"""Helpers for tests that compare with numbers from the authors' code."""

import json
import math
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parents[1] / "data"


def load(name):
    return json.loads((DATA / name).read_text())


def to_tensor(values):
    return torch.tensor(np.array(values), dtype=torch.float32)


def assert_close(got, expected, atol=1e-5, rtol=1e-5):
    torch.testing.assert_close(got.detach(), to_tensor(expected), atol=atol, rtol=rtol)


def number_of(name):
    """Return h in the formula of a weight, computed from the weight's name."""
    return sum(ord(character) * place for place, character in enumerate(name, 1)) % 97


def weight(name, shape):
    """Return the weight that the files describe by a formula: value n, in C order, is 0.5 sin(0.9 n + h)."""
    return to_tensor(0.5 * np.sin(0.9 * np.arange(math.prod(shape)) + number_of(name))).view(*shape)


def one_hots(indices, classes):
    """Return the one-hot vectors of indices such as [[0, 2], …], with shape (N, groups · classes)."""
    return torch.nn.functional.one_hot(torch.tensor(indices), classes).float().flatten(1)
