"""Check the text messages that come from the page, and pack the binary messages that go to it."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dreamer.tools.dream.controls import MAX_CONTROLS

MAX_BYTES = 4096  # bytes of a message from the page


class MessageError(ValueError):
    """Says in one line what is wrong with a message. Our own page sends no such message."""


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Play(_Message):
    """Play or pause."""

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
    """End the dream, or set it back to the real latent state."""

    kind: Literal["wake"]


class Back(_Message):
    """Go back to an earlier step that was kept, and dream from there."""

    kind: Literal["back"]
    number: int = Field(ge=0)


class Now(_Message):
    """Return from an earlier step to the present."""

    kind: Literal["now"]


class Who(_Message):
    """Choose who acts: the agent, the person at the page, or nobody ("again": the past actions are repeated)."""

    kind: Literal["who"]
    who: Literal["agent", "you", "again"]


class Act(_Message):
    """Take an action, a number for each control, in each step until another one comes."""

    kind: Literal["act"]
    values: list[float] = Field(min_length=1, max_length=MAX_CONTROLS)


class Speed(_Message):
    """Play at a multiple of the environment's own speed."""

    kind: Literal["speed"]
    factor: float = Field(ge=0.1, le=16)


class Save(_Message):
    """Send the views of the session as a file."""

    kind: Literal["save"]
    format: Literal["gif", "mp4", "npz"]


Message = Play | Step | Reset | Dream | Wake | Back | Now | Who | Act | Speed | Save
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def read(text: str) -> Message:
    """Return a message from the page. Raises MessageError."""
    if len(text.encode()) > MAX_BYTES:
        raise MessageError(f"a message of {len(text):,} characters; expected at most {MAX_BYTES:,} bytes")
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first_error = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first_error["loc"]))
        raise MessageError(f"{key or 'the message'}: {first_error['msg']}") from None


def pack(header: Mapping[str, Any], parts: Sequence[bytes | np.ndarray] = ()) -> bytes:
    """Return a message to the page: the header's length (4 bytes, little-endian), the header as JSON, then the parts.
    NaN and infinity become null, since JSON lacks them."""
    text = json.dumps(_finite(header), separators=(",", ":"), allow_nan=False).encode()
    return b"".join([struct.pack("<I", len(text)), text, *(bytes(part) for part in parts)])


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the joined parts of `pack`."""
    (length,) = struct.unpack_from("<I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def _finite(value: Any) -> Any:
    """Return plain values for JSON, also from NumPy's, rounded to six digits: a screen shows no more."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) != 0:
        return [_finite(part) for part in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value
