"""Graphs of a function's operations, and torch's compiler for them.

What torch does not document, and may move, is used here alone. Where a version lacks it, compiling fails and a run goes
on without (`training/compiling.py`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

Tensors = Sequence[torch.Tensor]


def graph_of(function: Callable[..., Any], arguments: Tensors) -> torch.fx.GraphModule:
    """Return the operations of a function of tensors; each call of the graph takes tensors of the same shapes."""
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        return make_fx(function)(*(part.detach() for part in arguments))  # a tensor given twice would count as one


def forward_and_backward(function: Callable[..., Tensors], arguments: Tensors, learns: Sequence[bool]) -> list[Any]:
    """Return two graphs: arguments → results and what the second one needs of them; this and the results' gradients → a
    gradient for each argument, None where it does not learn."""
    from functorch import compile as functorch  # takes a second

    graphs: list[Any] = []

    def keep(graph: Any, example: Any) -> Callable:
        for node in graph.graph.nodes:
            if node.target is torch.ops.aten.view.default:  # a result may be laid out otherwise than in the trace
                node.target = torch.ops.aten.reshape.default
        graph.recompile()
        graphs.append(graph)
        return functorch.make_boxed_func(graph)

    traced = functorch.aot_function(function, keep, keep, functorch.min_cut_rematerialization_partition)
    parts = [part.detach().requires_grad_(does) for part, does in zip(arguments, learns, strict=True)]
    with torch.enable_grad():
        results = traced(*parts)
        learning = [part for part in parts if part.requires_grad]
        torch.autograd.grad(results, learning, [torch.zeros_like(part) for part in results], allow_unused=True)
    return graphs


def compiled_graph(graph: torch.fx.GraphModule, arguments: list[Any], options: dict[str, Any]) -> Callable:
    """Return a graph's compiled form, for arguments of the same shapes and strides. options: of torch's compiler."""
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    for node in graph.graph.nodes:
        node.meta.clear()  # the strides at its tracing would count in place of those of the arguments
    with tracing(TracingContext(FakeTensorMode(shape_env=ShapeEnv()))):  # without it nothing is taken from the cache
        return torch._inductor.compile(graph, arguments, options=options)
