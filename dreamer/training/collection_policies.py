"""Make and trace the policies that collect."""

from typing import Any

import torch

from dreamer.algorithms.algorithm import Algorithm
from dreamer.algorithms.policy import Policy, reset_policy
from dreamer.training.collect import PolicyLike
from dreamer.training.traced_policy import trace_policy


class CollectionPolicies:
    """Makes, and traces, the policy by which an algorithm collects in an environment, and keeps it until another
    algorithm collects."""

    def __init__(self, env: Any, traces: bool) -> None:
        """traces: trace a policy's computation and run it as one graph."""
        self.env, self.traces = env, traces
        self.algorithm: Algorithm | None = None  # whose policy `policy` is
        self.policy: PolicyLike

    def policy_for(self, algorithm: Algorithm) -> PolicyLike:
        """Return the policy by which an algorithm collects, in its initial state."""
        if algorithm is not self.algorithm:
            self.algorithm = algorithm
            self.policy = algorithm.collection_policy(self.env)
            if self.traces:
                trace_policy(self.policy)
        return reset_policy(self.policy)


def networks_of(policy: PolicyLike) -> dict[str, torch.nn.Module]:
    """Return the networks of a policy by their names; {} for random actions."""
    return {"model": policy.model, "actor": policy.actor} if isinstance(policy, Policy) else {}


def weights_of(policy: PolicyLike) -> dict[str, Any]:
    """Return the state_dict of each of a policy's networks, by name."""
    return {name: network.state_dict() for name, network in networks_of(policy).items()}
