"""Switch between two sets of torch's global settings: this program's, and those of environments that use torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

GETTERS_AND_SETTERS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_default_device, torch.set_default_device),
)

_theirs: list[Any] | None = None  # the settings as environments have left them


@contextmanager
def environment_settings() -> Iterator[None]:
    """Use the environments' settings in the block, remember their changes, and restore the program's after it."""
    global _theirs
    ours = current()
    change(ours, _theirs or ours)
    try:
        yield
    finally:
        _theirs = current()
        change(_theirs, ours)


@contextmanager
def default_types() -> Iterator[None]:
    """Set the defaults for new tensors in the block to float32 and CPU, whatever the calling program has set."""
    before = current()
    usual = [torch.float32, before[1], torch.device("cpu")]
    change(before, usual)
    try:
        yield
    finally:
        change(usual, before)


def current() -> list[Any]:
    """Return the default type, whether torch records gradients, and the default device."""
    return [get() for get, _ in GETTERS_AND_SETTERS]


def change(before: list[Any], after: list[Any]) -> None:
    """Set the settings in which `after` differs from `before`."""
    for (_, put), old, new in zip(GETTERS_AND_SETTERS, before, after, strict=True):
        if old != new:
            put(new)
