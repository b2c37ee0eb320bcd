"""Trace the computation of a policy once, then run it as one graph."""

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

from dreamer.algorithms.policy import Policy
from dreamer.training.cuda_graph import CudaGraphed

PATIENCE = 200  # calls before tracing with TorchScript, which pays off after some 400


def trace_policy(policy: Any, patience: int = PATIENCE) -> None:
    """Run a `Policy` as a CUDA graph on a GPU, as a TorchScript graph on a CPU. Leave other policies unchanged.

    Weights may change afterwards, in place; the exploration noise must not. patience: as for `Traced`.
    """
    if not isinstance(policy, Policy):
        return
    if policy.device.type == "cuda":
        policy.decide = CudaGraphed(policy.decide, policy.device, "the policy")  # type: ignore[method-assign, assignment]
    elif policy.exploration_noise is None:  # the search for the mode may end early, a trace cannot
        trace_networks(policy, patience)
    elif policy.device.type == "cpu":
        traced = Traced(policy.decide, policy.model, policy.actor, patience=patience)
        policy.decide = traced  # type: ignore[method-assign, assignment]


def trace_networks(policy: Policy, patience: int = 0) -> None:
    """Run only the networks of a `Policy` as a TorchScript graph, on a CPU. Its exploration noise may change.

    patience: as for `Traced`.
    """
    if policy.device.type == "cpu":
        traced = Traced(policy.filter, policy.model, policy.actor, patience=patience)
        policy.filter = traced  # type: ignore[method-assign, assignment]


class Traced:
    """Runs a function of tensors as a TorchScript graph, without Python between the operations. Small networks act in
    0.4 of the time, with bitwise equal results.

    There is one graph for each number of rows. A graph repeats the branches that the traced call took, so its results
    are compared with the function's once; if they differ, the function is called instead. It is also called for numbers
    of rows beyond the first LARGEST_COUNT, since each graph takes memory.
    """

    LARGEST_COUNT = 8  # of graphs

    def __init__(self, function: Callable[..., Any], *networks: nn.Module, patience: int = 0) -> None:
        """function: its arguments are tensors, or dicts or tuples of them, all with the same number of rows. networks:
        all that it calls; their weights may change in place. patience: number of calls before tracing, which takes as
        long as some hundred calls."""
        self.function, self.networks, self.patience = function, networks, patience
        self.calls: Counter[int] = Counter()  # number of calls without a graph, by the number of rows
        self.graphs: dict[int, Callable[..., Any]] = {}  # by the number of rows

    def __call__(self, *arguments: Any) -> Any:
        rows = len(arguments[-1])
        if rows not in self.graphs and len(self.graphs) < self.LARGEST_COUNT:
            if self.calls[rows] >= self.patience:
                self.graphs[rows] = self.traced(arguments)
            self.calls[rows] += 1
        return self.graphs.get(rows, self.function)(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the graphs, which cannot be pickled; a copy makes its own."""
        return vars(self) | {"graphs": {}}

    def traced(self, arguments: tuple) -> Callable[..., Any]:
        """Return a graph traced from this call. If tracing fails or results differ, warn and return the function."""
        try:
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")  # TorchScript is no longer developed
                graph = torch.jit.trace(_Called(self.function, self.networks), arguments, check_trace=False)
            results = self.results(graph, arguments)
            expected = self.results(self.function, arguments)
            if all(map(torch.equal, results, expected)):
                return graph
            reason = "the graph gives other numbers"
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
        tqdm.write(f"warning: the policy cannot be traced and acts step by step: {reason}", file=sys.stderr)
        return self.function

    def results(self, function: Callable[..., Any], arguments: tuple) -> list[torch.Tensor]:
        """Return the tensors in the result of a call. Leave torch's random state as it was."""
        with torch.random.fork_rng(devices=[]):
            return tree_leaves(function(*arguments))


class _Called(nn.Module):
    """Wraps a function and its networks in a module, so that tracing does not turn their weights into constants."""

    def __init__(self, function: Callable[..., Any], networks: tuple[nn.Module, ...]) -> None:
        super().__init__()
        self.function, self.networks = function, nn.ModuleList(networks)

    def forward(self, *arguments: Any) -> Any:
        return self.function(*arguments)
