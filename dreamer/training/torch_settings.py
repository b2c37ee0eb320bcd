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
    settings_of_program = current()
    change(settings_of_program, _theirs or settings_of_program)
    try:
        yield
    finally:
        _theirs = current()
        change(_theirs, settings_of_program)


@contextmanager
def default_types() -> Iterator[None]:
    """Set the defaults for new tensors in the block to float32 and CPU, whatever the calling program has set."""
    before = current()
    _, records_gradients, _ = before
    defaults = [torch.float32, records_gradients, torch.device("cpu")]
    change(before, defaults)
    try:
        yield
    finally:
        change(defaults, before)


def current() -> list[Any]:
    """Return the default type, whether torch records gradients, and the default device."""
    return [get() for get, _ in GETTERS_AND_SETTERS]


def change(before: list[Any], after: list[Any]) -> None:
    """Set the settings in which `after` differs from `before`."""
    for (_, set_value), old, new in zip(GETTERS_AND_SETTERS, before, after, strict=True):
        if old != new:
            set_value(new)
