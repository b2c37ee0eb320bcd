"""What a page may send, and what it is sent."""

import json

import numpy as np
import pytest

from dreamer.tools.dream import messages
from dreamer.tools.dream.messages import MAX_BYTES, MessageError, pack, read, unpack


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        '{"kind": "quit"}',
        '{"kind": "play"}',
        '{"kind": "play", "on": 1}',
        '{"kind": "play", "on": true, "more": 1}',
        '{"kind": "dream", "count": 4}',
        '{"kind": "back", "number": -1}',
        '{"kind": "back", "number": 1.5}',
        '{"kind": "act", "values": []}',
        '{"kind": "act", "values": [NaN]}',
        '{"kind": "act", "values": [1e999]}',
        '{"kind": "act", "values": ["1"]}',
        json.dumps({"kind": "act", "values": [0.0] * 65}),
        '{"kind": "speed", "factor": 0}',
        '{"kind": "save", "format": "../gif"}',
        '{"kind": "step", "x": "' + "a" * MAX_BYTES + '"}',
        "[" * 2000,
    ],
)
def test_invalid_message_is_refused(text):
    with pytest.raises(MessageError) as caught:
        read(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_valid_message_is_read():
    assert read('{"kind": "act", "values": [0.5, -1]}') == messages.Act(kind="act", values=[0.5, -1.0])
    assert read('{"kind": "back", "number": 3}').number == 3


def test_numbers_that_json_lacks_become_null():
    header = {"a": np.float32(0.1), "b": [np.nan, np.inf], "c": np.arange(2), "d": np.array(1.5), "e": {"f": None}}
    expected = {"a": 0.1, "b": [None, None], "c": [0, 1], "d": 1.5, "e": {"f": None}}
    assert unpack(pack(header, [b"xy", np.uint8([[1, 2]])])) == (expected, b"xy\x01\x02")
