"""Conversion of spaces to JSON values and back."""

import enum
import json

import numpy as np
import pytest
from gymnasium import spaces

from dreamer.envs.spaces import Spaces, space_from_json, space_to_json, spaces_from_json
from tests.envs.toy_gymnasium import PARTS

Box = spaces.Box
Keys = enum.Enum("Keys", "PLACE")
MIXED = np.array([-1, -np.inf, 0.1], np.float32), np.array([1, np.inf, 0.3], np.float32)
ALL = [
    Box(-np.inf, np.inf, (3,)),
    Box(*MIXED),
    Box(np.array([[0.1], [0.2]]), np.array([[0.3], [np.inf]]), dtype=np.float64),
    Box(0, 255, (4, 5, 3), np.uint8),
    Box(-(2**63), 2**63 - 1, (2,), np.int64),
    Box(np.array([0, 5], np.uint64), np.array([9, 2**64 - 1], np.uint64), dtype=np.uint64),
    Box(0, 1, (2,), np.float16),
    Box(0, 1, (2,), np.bool_),
    Box(0, 1, ()),
    spaces.Discrete(3, start=-1),
    spaces.MultiBinary(3),
    spaces.MultiBinary((2, 1)),
    spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [2, 3]]),
    spaces.MultiDiscrete([2, 3], np.int8),
    spaces.Tuple([spaces.Discrete(2), spaces.Dict({3: Box(0, 1), 2: Box(0, 2)})]),
    spaces.Dict([("b", Box(0, 1)), ("a", PARTS["dials"])], sort_keys=False),
]


@pytest.mark.parametrize("space", ALL, ids=str)
def test_space_survives_conversion_to_json(space):
    """The JSON is standard, bounds are exact, and parts keep their order."""
    plain = space_to_json(space)
    restored = space_from_json(json.loads(json.dumps(plain, allow_nan=False)))
    assert restored == space and restored.dtype == space.dtype and space_to_json(restored) == plain
    assert list(getattr(restored, "spaces", ())) == list(getattr(space, "spaces", ()))


def test_spaces_without_a_json_form_are_not_saved():
    for space in (spaces.Text(3), spaces.Dict([(Keys.PLACE, Box(0, 1))])):
        with pytest.raises(TypeError, match="cannot be described"):
            space_to_json(space)
        assert Spaces(space, Box(0, 1)).state_dict() == {}


WRONG = [
    {},
    {"action": {}, "observation": []},
    {"kind": "Graph"},
    {"kind": "Discrete", "n": -1, "start": 0},
    {"kind": "Box", "dtype": "object", "shape": [1], "low": 0, "high": 1},
    {"kind": "Box", "dtype": "float32", "shape": [2], "low": [0, 0, 0], "high": 1},
    {"kind": "Box", "dtype": "float32", "shape": [1], "low": 2, "high": 1},
    {"kind": "Box", "dtype": "float32", "shape": [2**20, 2**20], "low": 0, "high": 1},
]


@pytest.mark.parametrize("plain", WRONG, ids=str)
def test_invalid_json_is_refused(plain):
    with pytest.raises(ValueError):
        spaces_from_json({"observation": plain, "action": plain} if "kind" in plain else plain)
