"""Warnings about an environment, each printed once in a process."""

import sys

_warned = set()  # what was warned about in this process


def warn_once(line, about=None):
    """Print a warning, unless there was one about the same before; None: of the same words."""
    if None not in _warned and (about or line) not in _warned:
        _warned.add(about or line)
        print(f"warning: {line}", file=sys.stderr)


def warned():
    """Return what was warned about, for `take_as_warned` in another process."""
    return frozenset(_warned)


def take_as_warned(subjects):
    """Do not warn about these again; [None]: about nothing."""
    _warned.update(subjects)
