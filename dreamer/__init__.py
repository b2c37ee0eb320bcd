"""Dreamer, DreamerV2, DreamerV3 and Plan2Explore. `from dreamer import Agent` plays what a run has learned."""

import importlib
from typing import Any

_PLACES = {"Agent": "dreamer.agent"}  # imported when they are asked for: `import dreamer` alone costs nothing
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
