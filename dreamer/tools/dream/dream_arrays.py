"""Select, repeat and convert the arrays of dreams.

Shapes: B dreams side by side, T time.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from torch.utils._pytree import tree_map

from dreamer.algorithms.dream import Dream


def repeat_action(action: Any, count: int | None = None) -> Any:
    """Return an action for one step of one dream, (1, ·), or of `count` dreams, (B, 1, ·)."""
    axes = (1,) if count is None else (count, 1)
    return tree_map(lambda part: np.broadcast_to(part, (*axes, *np.shape(part))), action)


def last_step(dream: Dream) -> Dream:
    """Return the last step of dreams (B, T, ...)."""
    return map_arrays(dream, lambda part: part[:, -1])


def repeat_state(dream: Dream, count: int) -> Dream:
    """Return one state's predictions several times, (B, ...)."""
    return map_arrays(dream, lambda part: np.broadcast_to(part, (count, *part.shape)))


def map_arrays(dream: Dream, function: Callable[[np.ndarray], np.ndarray]) -> Dream:
    """Return a dream with a function applied to each of its arrays."""
    parts = {name: None if part is None else tree_map(function, part) for name, part in vars(dream).items()}
    return Dream(**cast(Any, parts))
