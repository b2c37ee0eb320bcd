"""What the tests of the authors' numbers share."""

import json
import math
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parents[1] / "data"


def load(name):
    return json.loads((DATA / name).read_text())


def figures(values):
    return torch.tensor(values, dtype=torch.float32)


def assert_close(got, expected, atol=1e-5, rtol=1e-5):
    expected = expected if torch.is_tensor(expected) else figures(expected)
    torch.testing.assert_close(got.detach().float(), expected, atol=atol, rtol=rtol)


def weight(name, shape):
    """The formula by which both files fill their weights: value n, in C order, is 0.5 sin(0.9 n + h)."""
    number = sum(ord(character) * place for place, character in enumerate(name, 1)) % 97
    values = 0.5 * np.sin(0.9 * np.arange(math.prod(shape)) + number)
    return torch.tensor(values.reshape(shape), dtype=torch.float32)


def one_hots(indices, classes):
    """[[0, 2], …] → (N, groups · classes)."""
    return torch.nn.functional.one_hot(torch.tensor(indices), classes).float().flatten(1)
