"""Read TensorBoard's event files: a sequence of records, each with its length and two checksums."""

import re
import struct
from pathlib import Path

from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

HEADER, FOOTER = 12, 4  # bytes: the length and its checksum; the checksum of what lies between
# Matches where this program's records begin: a length below 4 GB, its checksum, an event that begins with its time.
BEGINNING = re.compile(rb"(?=.{4}\0{4}.{4}\x09)", re.DOTALL)


def event_files(folder: Path) -> list[Path]:
    """Return the files with TensorBoard's events."""
    return sorted(folder.glob("events.out.tfevents.*"))


def whole_records(content: bytes) -> bytes:
    """Return the bytes of an event file without its damaged records, since a reader would stop at the first one."""
    records = []
    position = 0
    while position < len(content):
        end, is_whole = _record(content, position)
        if end is None:
            match = BEGINNING.search(content, position + 1)
            end = match.start() if match else len(content)
        elif is_whole:
            records.append(content[position:end])
        position = end
    return b"".join(records)


def _record(content: bytes, position: int) -> tuple[int | None, bool]:
    """Return (end, whether its content is whole) of the record at `position`; end is None if none begins there."""
    header = content[position : position + HEADER]
    if len(header) < HEADER or masked_crc32c(header[:8]) != _number(header[8:]):
        return None, False
    (length,) = struct.unpack("<Q", header[:8])
    end = position + HEADER + length + FOOTER
    if end > len(content):
        return None, False
    return end, masked_crc32c(content[position + HEADER : end - FOOTER]) == _number(content[end - FOOTER : end])


def _number(four_bytes: bytes) -> int:
    return struct.unpack("<I", four_bytes)[0]
