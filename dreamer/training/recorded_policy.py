"""Policies whose computation is recorded once and then run as one graph."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

from dreamer.algorithms.policy import Policy
from dreamer.training.cuda_graph import CudaGraphed


def record(policy: Any) -> None:
    """Let a `Policy` act by a CUDA graph on a GPU, and by a graph of TorchScript on a CPU. Other policies stay.

    Weights may change afterwards, in place; the exploration noise must not.
    """
    if not isinstance(policy, Policy):
        return
    if policy.device.type == "cuda":
        policy.decide = CudaGraphed(policy.decide, policy.device, "the policy")  # type: ignore[method-assign, assignment]
    elif policy.device.type == "cpu":
        networks = policy.model, policy.actor
        if policy.exploration_noise is None:  # finding the mode may end early, which no graph can decide
            policy.filter = Traced(policy.filter, *networks)  # type: ignore[method-assign, assignment]
        else:
            policy.decide = Traced(policy.decide, *networks)  # type: ignore[method-assign, assignment]


class Traced:
    """Calls a function of tensors by a graph of its operations, without Python between them: small networks act in 0.4
    of the time, with the same bits.

    The graph repeats what the first call did, whatever Python would decide later. So it is compared with the function
    in the first call for each number of rows; where they differ, the function is called as it is.
    """

    def __init__(self, function: Callable[..., Any], *networks: nn.Module) -> None:
        """function: its arguments are tensors, or dicts or tuples of them, all of as many rows. networks: all that it
        calls; their weights may change in place."""
        self.function, self.networks = function, networks
        self.graphs: dict[int, Callable[..., Any]] = {}  # by the number of rows

    def __call__(self, *arguments: Any) -> Any:
        rows = len(arguments[-1])
        if rows not in self.graphs:
            self.graphs[rows] = self.traced(arguments)
        return self.graphs[rows](*arguments)

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
