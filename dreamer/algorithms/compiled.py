"""torch.compile for an update: its steps and its heads, a small graph each. The loops over them stay as they are.

Whole losses as one graph would be faster still, but take minutes to compile.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from dreamer.algorithms.algorithm import Algorithm, DreamerAlgorithm
from dreamer.algorithms.plan2explore import Plan2Explore

# fallback_random: random numbers are torch's, whose state a checkpoint keeps
OPTIONS: dict[str, Any] = {"fullgraph": True, "dynamic": False, "options": {"fallback_random": True}}


def compile_parts(algorithm: Algorithm, compiler: Callable[[Callable], Callable] | None = None) -> bool:
    """Let an algorithm's steps and heads be compiled when they are first called. Return False if they were already.

    compiler: returns a function's compiled form; None takes torch.compile. Acting, evaluations and predictions go on
    with the plain forms.
    """
    compiler = compiler or (lambda function: torch.compile(function, **OPTIONS))
    new = [(owner, name) for owner, name in parts(algorithm) if name not in vars(owner)]
    if new and "torch._dynamo" in sys.modules:
        torch._dynamo.reset()  # it keeps at most 8 forms of a function in a process
    for owner, name in new:
        setattr(owner, name, compiler(getattr(owner, name)))
    rssm = algorithm.model.rssm
    rssm.compiled = rssm.compiled or (compiler(rssm.observe_step), compiler(rssm.prior))
    return bool(new)


def undo(algorithm: Algorithm) -> None:
    """Return to the plain forms."""
    for owner, name in parts(algorithm):
        vars(owner).pop(name, None)
    algorithm.model.rssm.compiled = None


def parts(algorithm: Algorithm) -> Iterator[tuple[Any, str]]:
    """Yield what is compiled: an object and the name of its method. `compile_parts` treats the RSSM's apart."""
    if isinstance(algorithm, Plan2Explore):
        yield algorithm.explorer, "values"
        yield from parts(algorithm.dreamer)
    elif isinstance(algorithm, DreamerAlgorithm):
        yield algorithm.model, "encode"
        yield algorithm.actor_critic, "values"
        for name in ("imagine_step", *algorithm.compilable):
            yield algorithm, name
