"""The messages between the page and a session: text from the page, checked; bytes to the page."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dreamer.tools.dream.controls import MOST

LARGEST = 4096  # bytes of a message from the page


class MessageError(ValueError):
    """A message that no page of ours sends. Its one line says what is wrong."""


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Play(_Message):
    """Go on, or pause."""

    kind: Literal["play"]
    on: bool


class Step(_Message):
    """Make one step and pause."""

    kind: Literal["step"]


class Reset(_Message):
    """Begin another episode."""

    kind: Literal["reset"]


class Dream(_Message):
    """Dream from here, once or several times side by side."""

    kind: Literal["dream"]
    count: Literal[1, 9]


class Wake(_Message):
    """Set the dream back to reality."""

    kind: Literal["wake"]


class Back(_Message):
    """Go back to a step that was kept, and dream again."""

    kind: Literal["back"]
    number: int = Field(ge=0)


class Now(_Message):
    """Return from a step that was kept to the present."""

    kind: Literal["now"]


class Who(_Message):
    """Choose who acts: the agent, the person at the page, or the actions as they were."""

    kind: Literal["who"]
    who: Literal["agent", "you", "again"]


class Act(_Message):
    """Take an action, a number for each control, until another one comes."""

    kind: Literal["act"]
    values: list[float] = Field(min_length=1, max_length=MOST)


class Speed(_Message):
    """Play at a multiple of the environment's own speed."""

    kind: Literal["speed"]
    factor: float = Field(ge=0.1, le=16)


class Save(_Message):
    """Send what was seen as a file."""

    kind: Literal["save"]
    format: Literal["gif", "mp4", "npz"]


Message = Play | Step | Reset | Dream | Wake | Back | Now | Who | Act | Speed | Save
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def read(text: str) -> Message:
    """Return a message from the page. Raises MessageError."""
    if len(text.encode()) > LARGEST:
        raise MessageError(f"a message of {len(text):,} characters; expected at most {LARGEST:,} bytes")
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise MessageError(f"{where or 'the message'}: {first['msg']}") from None


def pack(header: Mapping[str, Any], parts: Sequence[bytes | np.ndarray] = ()) -> bytes:
    """Return a message to the page: the length of the header, 4 bytes, little end first; the header as JSON; the parts
    one after the other. Numbers that JSON lacks become null."""
    text = json.dumps(_finite(header), separators=(",", ":"), allow_nan=False).encode()
    return b"".join([struct.pack("<I", len(text)), text, *(bytes(part) for part in parts)])


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the joined parts of `pack`."""
    (length,) = struct.unpack_from("<I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def _finite(value: Any) -> Any:
    """Return plain values for JSON, of NumPy's, too; rounded to six digits, which is more than a screen shows."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) != 0:
        return [_finite(part) for part in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value
