"""Compile the steps and heads of an update with torch.compile, each into a small graph. Loops over them stay Python.

Whole losses as one graph would be faster still, but take minutes to compile.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from dreamer.algorithms.actor_critic import ActorCritic
from dreamer.algorithms.algorithm import Algorithm, DreamerAlgorithm
from dreamer.algorithms.imagined import ImaginedScan
from dreamer.algorithms.plan2explore import Plan2Explore
from dreamer.modules.scan import Compiler, Scan
from dreamer.modules.tracing import compiled_graph

ARGUMENT = re.compile(r"L\['\w+'\]")  # how some versions of torch write the name of an argument
OPTIONS: dict[str, Any] = {
    "fallback_random": True,  # random numbers are torch's, whose state a checkpoint keeps
    "size_asserts": False,  # shapes do not change
}
ON_CPU: dict[str, Any] = {
    "cpp_wrapper": True,  # a graph is one C++ function that calls its kernels; a GPU has CUDA graphs
    "cpp.use_decompose_tanh": True,  # tanh made of exp: faster, and 1e-7 off
}


def compiled_form(function: Callable, device: torch.device) -> Callable:
    """Return a function compiled by torch.compile, for tensors whose shapes do not change.

    Only tensors and plain numbers may change between calls. Other values that the function reads are not checked: that
    would take longer than a small step.
    """
    options = options_on(device) | {"guard_filter_fn": checked}
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def options_on(device: torch.device) -> dict[str, Any]:
    """Return the options of torch's compiler on a device."""
    return OPTIONS | ON_CPU if device.type == "cpu" else OPTIONS


def checked(guards: Sequence[Any]) -> list[bool]:
    """Return which conditions of a compiled form are checked in each call: whether gradients are taken, the shapes of
    tensors, and arguments that are numbers."""
    is_checked = []
    for guard in guards:
        is_tensor = guard.guard_type == "TENSOR_MATCH" and not isinstance(guard.value, torch.nn.Parameter)
        is_argument = guard.name.isidentifier() or bool(ARGUMENT.fullmatch(guard.name))
        is_number = is_argument and isinstance(guard.value, bool | int | float | None)
        is_checked.append(guard.guard_type == "GLOBAL_STATE" or is_tensor or is_number)
    return is_checked


def compile_parts(algorithm: Algorithm, compiler: Callable[[Callable], Callable] | None = None) -> bool:
    """Replace an algorithm's steps and heads by forms that compile when they are first called. Return False if they
    were replaced before.

    compiler: returns a function's compiled form; None takes torch.compile. Acting, evaluations and predictions keep
    the plain forms.
    """
    graph_compiler: Compiler = uncompiled
    if compiler is None:
        compiler = partial(compiled_form, device=algorithm.device)
        graph_compiler = partial(compiled_graph, options=options_on(algorithm.device))
    plain_methods = [(owner, name) for owner, name in methods_to_compile(algorithm) if name not in vars(owner)]
    if plain_methods and "torch._dynamo" in sys.modules:
        torch._dynamo.reset()  # it keeps at most 8 forms of a function in a process
    for owner, name in plain_methods:
        setattr(owner, name, compiler(getattr(owner, name)))
    rssm = algorithm.model.rssm
    if rssm.compiled is None:
        rssm.compiled = Scan(rssm, len(rssm.sizes), graph_compiler), compiler(rssm.prior)
    for behavior in behaviors(algorithm):
        if behavior.through_dynamics and behavior.scan is None:
            behavior.scan = ImaginedScan(rssm, behavior.actor, graph_compiler)
    return bool(plain_methods)


def uncompiled(graph: torch.fx.GraphModule, arguments: Sequence[torch.Tensor]) -> Callable:
    """Return a graph uncompiled: it computes operation by operation."""
    return graph


def uncompile_parts(algorithm: Algorithm) -> None:
    """Return to the plain forms."""
    for owner, name in methods_to_compile(algorithm):
        vars(owner).pop(name, None)
    algorithm.model.rssm.compiled = None
    for behavior in behaviors(algorithm):
        behavior.scan = None


def behaviors(algorithm: Algorithm) -> Iterator[ActorCritic]:
    """Yield the actors with their critics."""
    if isinstance(algorithm, Plan2Explore):
        yield algorithm.explorer
        yield from behaviors(algorithm.dreamer)
    elif isinstance(algorithm, DreamerAlgorithm):
        yield algorithm.actor_critic


def methods_to_compile(algorithm: Algorithm) -> Iterator[tuple[Any, str]]:
    """Yield the methods to compile, each as an object and a name. `compile_parts` compiles those of the RSSM itself."""
    if isinstance(algorithm, Plan2Explore):
        yield algorithm.explorer, "values"
        yield from methods_to_compile(algorithm.dreamer)
    elif isinstance(algorithm, DreamerAlgorithm):
        yield algorithm.model, "encode"
        yield algorithm.actor_critic, "values"
        for name in ("imagine_step", *algorithm.compilable):
            yield algorithm, name
