"""Dreamer, DreamerV2, DreamerV3 and Plan2Explore. `train` begins or resumes a run, `Agent` acts as it has learned."""

import importlib
from typing import Any

# Imported on first use, so that `import dreamer` alone takes no time.
_MODULES = {"Agent": "dreamer.agent", "train": "dreamer.main"}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
