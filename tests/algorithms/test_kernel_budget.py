"""How many operations an update of the paper's lengths makes, on torch's meta device; on a GPU each is a kernel."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dreamer.algorithms.compiled import compile_parts
from dreamer.replay.step import Batch
from tests.algorithms.test_recorded_updates import meta  # noqa: F401  # a fixture
from tests.algorithms.test_update import make

MEMORY = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "detach", "lift_fresh"}


class Operations(TorchDispatchMode):
    """Counts operations, but for views and memory alone."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function._schema.name.removeprefix("aten::")
        self.count += not (function.is_view or name in MEMORY or name.startswith("prim"))
        return function(*arguments, **(keywords or {}))


def operations(agent, length, horizon):
    """Those of an update from pixels; without those of Adam, which are few."""
    getattr(agent, "dreamer", agent).config.horizon_length = horizon
    shapes = (3, length, 3, 64, 64), (3, length, 2), (3, length), (3, length), (3, length), (3, 0)
    pixels, *others = (torch.empty(shape, device="meta") for shape in shapes)
    with Operations() as counted:
        agent.update(Batch(pixels.byte(), *others))
    return counted.count


@pytest.mark.parametrize(
    "config, length, most", [("dreamer", 50, 5300), ("dreamer-v3", 64, 12600), ("plan2explore", 50, 7400)]
)
def test_the_operations_of_an_update(config, length, most, meta):  # noqa: F811
    """With observed states by a scan, before anything is compiled. H is 15. Each step that is observed or imagined adds
    as many, so short windows tell."""
    agent = make(config, device="meta")
    compile_parts(agent, lambda function: function)
    few = operations(agent, 3, 2)
    by_step, by_imagined = operations(agent, 4, 2) - few, operations(agent, 3, 3) - few
    assert few + (length - 3) * by_step + (15 - 2) * by_imagined <= most
