"""Policies whose computation is traced once and then run as one graph."""

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

PATIENCE = 200  # calls without a graph of TorchScript, which repays itself after some 400


def trace_policy(policy: Any, patience: int = PATIENCE) -> None:
    """Let a `Policy` act by a CUDA graph on a GPU, and by a graph of TorchScript on a CPU. Other policies stay.

    Weights may change afterwards, in place; the exploration noise must not. patience: as for `Traced`.
    """
    if not isinstance(policy, Policy):
        return
    if policy.device.type == "cuda":
        policy.decide = CudaGraphed(policy.decide, policy.device, "the policy")  # type: ignore[method-assign, assignment]
    elif policy.exploration_noise is None:  # finding the mode may end early, which no graph can decide
        trace_networks(policy, patience)
    elif policy.device.type == "cpu":
        traced = Traced(policy.decide, policy.model, policy.actor, patience=patience)
        policy.decide = traced  # type: ignore[method-assign, assignment]


def trace_networks(policy: Policy, patience: int = 0) -> None:
    """Let the networks of a `Policy` compute by a graph of TorchScript on a CPU. Its exploration noise may change.

    patience: as for `Traced`.
    """
    if policy.device.type == "cpu":
        traced = Traced(policy.filter, policy.model, policy.actor, patience=patience)
        policy.filter = traced  # type: ignore[method-assign, assignment]


class Traced:
    """Calls a function of tensors by a graph of its operations, without Python between them: small networks act in 0.4
    of the time, with the same bits.

    The graph repeats what the first call did, whatever Python would decide later. So it is compared with the function
    when it is made for a number of rows; where they differ, the function is called as it is. So it is for further
    numbers of rows after the first few, since each graph takes memory.
    """

    LARGEST_COUNT = 8  # of graphs

    def __init__(self, function: Callable[..., Any], *networks: nn.Module, patience: int = 0) -> None:
        """function: its arguments are tensors, or dicts or tuples of them, all of as many rows. networks: all that it
        calls; their weights may change in place. patience: number of calls before a graph is made, which takes as long
        as some hundred calls."""
        self.function, self.networks, self.patience = function, networks, patience
        self.calls: Counter[int] = Counter()  # without a graph, by the number of rows
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
        """Return the graph of a call. Return the function, and warn, where that fails or gives something else."""
        try:
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")  # TorchScript is no longer developed
                graph = torch.jit.trace(_Called(self.function, self.networks), arguments, check_trace=False)
            if all(map(torch.equal, self.results(graph, arguments), self.results(self.function, arguments))):
                return graph
            reason = "it gives other numbers"
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
        tqdm.write(f"warning: the policy cannot be traced and acts step by step: {reason}", file=sys.stderr)
        return self.function

    def results(self, function: Callable[..., Any], arguments: tuple) -> list[torch.Tensor]:
        """Return the tensors that a call returns, without a change to the random numbers that follow."""
        with torch.random.fork_rng(devices=[]):
            return tree_leaves(function(*arguments))


class _Called(nn.Module):
    """A function as a module, which has the weights that the function reads: in a graph they are no constants."""

    def __init__(self, function: Callable[..., Any], networks: tuple[nn.Module, ...]) -> None:
        super().__init__()
        self.function, self.networks = function, nn.ModuleList(networks)

    def forward(self, *arguments: Any) -> Any:
        return self.function(*arguments)
