"""What torch is set to for all code of a process, kept apart: for the program, and for environments that use torch."""

from contextlib import contextmanager

import torch

GETTERS_AND_SETTERS = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_default_device, torch.set_default_device),
)


_theirs = None  # as environments have left them


@contextmanager
def of_environments():
    """Within it they are as environments have left them, after it as they were."""
    global _theirs
    ours = current()
    change(ours, _theirs or ours)
    try:
        yield
    finally:
        _theirs = current()
        change(_theirs, ours)


def current():
    """Return the default type, whether gradients are recorded, and the default device."""
    return [get() for get, _ in GETTERS_AND_SETTERS]


def change(before, after):
    """Set what differs."""
    for (_, put), old, new in zip(GETTERS_AND_SETTERS, before, after, strict=True):
        if old != new:
            put(new)
