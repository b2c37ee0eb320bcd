"""Count the kernels of a compiled update in the code that torch's compiler writes for a CPU. It is not built.

python -m tests.count_kernels dreamer          # or dreamer-v2, dreamer-v3, plan2explore

Networks are narrow; batch length and horizon are the paper's. Almost each kernel is also one on a GPU: fused loops,
products, convolutions, random numbers, and operations between graphs.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from unittest import mock

import torch
from torch._inductor import compile_fx
from torch._inductor.async_compile import AsyncCompile
from torch.utils._python_dispatch import TorchDispatchMode

from dreamer.algorithms import compiled
from dreamer.replay.step import Batch
from tests.algorithms.test_update import make

LENGTHS = {"dreamer": 50, "dreamer-v2": 50, "dreamer-v3": 64, "plan2explore": 50}
HORIZON = 15
NO_KERNEL = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "detach", "lift_fresh"}
NO_KERNEL |= {"_unsafe_view", "profiler::_record_function_enter_new", "profiler::_record_function_exit"}
CALL = re.compile(r"^\s+(?:\w+ = )?(cpp_fused\w*|extern_kernels\.\w+|torch\.ops\.[\w.]+|aten\.[\w.]+)\(")


class Kernels(TorchDispatchMode):
    """Count the operations between graphs and the calls of graphs in its `with` block."""

    def __init__(self):
        super().__init__()
        self.between, self.calls = Counter(), Counter()
        self.within = 0

    @property
    def total(self):
        return sum(self.between.values()) + sum(len(graph.kernels) * count for graph, count in self.calls.items())

    @classmethod
    def ignore_compile_internals(cls):
        return True

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function._schema.name.removeprefix("aten::")
        if not (self.within or function.is_view or name in NO_KERNEL or name.startswith("prim")):
            self.between[name] += 1
        return function(*arguments, **(keywords or {}))


class Graph:
    """Run a graph operation by operation; `kernels` are those that the compiled graph would start."""

    counting: Kernels | None = None

    def __init__(self, graph, code):
        self.graph = torch.fx.Interpreter(graph)
        self._boxed_call = True  # set here, since a wrapper copies the attributes of the instance only
        calls = code[code.index("def call(") :].splitlines()
        self.kernels = [found[1] for found in map(CALL.match, calls) if found]

    def __call__(self, arguments):
        mode = Graph.counting
        if mode is None:
            return self.graph.boxed_run(list(arguments))
        mode.calls[self] += 1
        mode.within += 1
        try:
            return self.graph.boxed_run(list(arguments))
        finally:
            mode.within -= 1


@contextmanager
def generate_code_only() -> Iterator[list[Graph]]:
    """In this block torch's compiler generates code but does not build it. Yield the list of generated graphs."""
    graphs: list[Graph] = []

    def inner(graph, arguments, **options):
        plain = deepcopy(graph)
        graphs.append(Graph(plain, compile_fx.compile_fx_inner(graph, arguments, **options).source_code))
        return graphs[-1]

    compile_graph = partial(compile_fx.compile_fx, inner_compile=inner)
    settings = {"cpp_wrapper": False, "force_disable_caches": True, "cpp.vec_isa_ok": True}
    settings |= {"cpp.simdlen": 1}  # no vectorised code beside the scalar one: the kernels are the same

    def compiler(function, *, options, **others):
        guards = {"guard_filter_fn": options["guard_filter_fn"]}
        backend = partial(compile_graph, config_patches={key: options[key] for key in options.keys() - guards.keys()})
        return real(function, backend=backend, options=guards, **others)

    real = torch.compile
    with (
        mock.patch.dict(compiled.ON_CPU, settings),
        mock.patch.object(torch, "compile", compiler),
        mock.patch.object(
            torch._inductor, "compile", lambda *parts, options: compile_graph(*parts, config_patches=options)
        ),
        mock.patch.object(AsyncCompile, "cpp_pybinding", lambda self, *others: None),
    ):
        yield graphs


def kernels_of_update(config, *overrides, length, horizon=HORIZON):
    """Return the `Kernels` of one update with two windows of 64x64 pixels."""
    with generate_code_only():
        agent = make(config, *overrides)
        getattr(agent, "dreamer", agent).config.horizon_length = horizon
        pixels = torch.randint(256, (2, length, 3, 64, 64), dtype=torch.uint8)
        action, others = torch.rand(2, length, 2) * 2 - 1, torch.zeros(3, 2, length)
        batch = Batch(pixels, action, *others, torch.zeros(2, 0))
        compiled.compile_parts(agent)
        agent.update(batch)
        with Kernels() as found, mock.patch.object(Graph, "counting", found):
            agent.update(batch)
    return found


if __name__ == "__main__":
    for name in sys.argv[1:]:
        found = kernels_of_update(name, length=LENGTHS[name])
        for graph, count in found.calls.items():
            print(f"{count} x {len(graph.kernels)} kernels of a graph of {len(graph.graph.module.graph.nodes)} nodes")
        print(dict(found.between.most_common()))
        print(f"{name}, T = {LENGTHS[name]}, H = {HORIZON}: {found.total} kernels")
