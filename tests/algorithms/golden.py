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
    return torch.tensor(np.array(values), dtype=torch.float32)


def assert_close(got, expected, atol=1e-5, rtol=1e-5):
    torch.testing.assert_close(got.detach(), figures(expected), atol=atol, rtol=rtol)


def number_of(name):
    """h in the formulas of weights, which the name of a weight gives."""
    return sum(ord(character) * place for place, character in enumerate(name, 1)) % 97


def weight(name, shape):
    """The formula by which the files fill their weights: value n, in C order, is 0.5 sin(0.9 n + h)."""
    return figures(0.5 * np.sin(0.9 * np.arange(math.prod(shape)) + number_of(name))).view(*shape)


def one_hots(indices, classes):
    """[[0, 2], …] → (N, groups · classes)."""
    return torch.nn.functional.one_hot(torch.tensor(indices), classes).float().flatten(1)
