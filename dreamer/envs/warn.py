"""Warnings about an environment, each printed once in a process."""

import sys
from collections.abc import Hashable, Iterable

_warned: set[Hashable] = set()  # the subjects that this process has warned about; with None in it, it prints nothing


def warn_once(line: str, about: Hashable = None) -> None:
    """Print a warning, unless one about the same subject was printed before. about: the subject; None: the line."""
    if None not in _warned and (about or line) not in _warned:
        _warned.add(about or line)
        print(f"warning: {line}", file=sys.stderr)


def warned() -> frozenset[Hashable]:
    """Return the subjects of all warnings so far, for `take_as_warned` in another process."""
    return frozenset(_warned)


def take_as_warned(subjects: Iterable[Hashable]) -> None:
    """Print no warnings about these subjects; [None]: print no warnings at all."""
    _warned.update(subjects)
