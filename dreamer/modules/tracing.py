"""Trace a function into a graph of its operations, and compile a graph.

Only this file uses parts of torch that it does not document. Where a version of torch lacks one, compiling fails and
the run goes on without it (`training/compiling.py`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

Tensors = Sequence[torch.Tensor]


def graph_of(function: Callable[..., Any], arguments: Tensors) -> torch.fx.GraphModule:
    """Return the operations of a function of tensors; each call of the graph takes tensors of the same shapes."""
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        # detached: make_fx would take a tensor that is passed twice for a single argument
        return make_fx(function)(*(tensor.detach() for tensor in arguments))


def forward_and_backward(function: Callable[..., Tensors], arguments: Tensors, learns: Sequence[bool]) -> list[Any]:
    """Return two graphs. The first: arguments → results and saved tensors. The second: saved tensors and the results'
    gradients → a gradient for each argument, None where `learns` is False."""
    from functorch import compile as functorch  # takes a second

    graphs: list[Any] = []

    def keep_graph(graph: Any, example: Any) -> Callable:
        for node in graph.graph.nodes:
            if node.target is torch.ops.aten.view.default:  # tensors may have other strides than when traced
                node.target = torch.ops.aten.reshape.default
        graph.recompile()
        graphs.append(graph)
        return functorch.make_boxed_func(graph)

    # The calls below trace the function: `keep_graph` gets the forward graph first, then the backward graph.
    traced = functorch.aot_function(function, keep_graph, keep_graph, functorch.min_cut_rematerialization_partition)
    inputs = [tensor.detach().requires_grad_(needs) for tensor, needs in zip(arguments, learns, strict=True)]
    with torch.enable_grad():
        results = traced(*inputs)
        learning = [tensor for tensor in inputs if tensor.requires_grad]
        gradients = [torch.zeros_like(result) for result in results]
        torch.autograd.grad(results, learning, gradients, allow_unused=True)
    return graphs


def compiled_graph(graph: torch.fx.GraphModule, arguments: list[Any], options: dict[str, Any]) -> Callable:
    """Return a graph's compiled form, for arguments of the same shapes and strides. options: of torch's compiler."""
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    for node in graph.graph.nodes:
        node.meta.clear()  # else the compiler takes the strides of the tracing, not those of the arguments
    with tracing(TracingContext(FakeTensorMode(shape_env=ShapeEnv()))):  # else the compiler does not use its cache
        return torch._inductor.compile(graph, arguments, options=options)
