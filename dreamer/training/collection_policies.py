"""The policies that collect: each is made, and traced, once."""

from typing import Any

import torch

from dreamer.algorithms.algorithm import Algorithm
from dreamer.algorithms.policy import Policy, reset_policy
from dreamer.training.collect import PolicyLike
from dreamer.training.traced_policy import trace_policy


class CollectionPolicies:
    """The policies by which algorithms collect in an environment. Each is made, and traced, once."""

    def __init__(self, env: Any, traces: bool) -> None:
        """traces: whether a policy's computation is traced and then run as one graph."""
        self.env, self.traces = env, traces
        self.algorithm: Algorithm | None = None  # the one asked for last
        self.policy: PolicyLike

    def policy_for(self, algorithm: Algorithm) -> PolicyLike:
        """Return the policy by which an algorithm collects, in its initial state."""
        if algorithm is not self.algorithm:
            self.algorithm, self.policy = algorithm, algorithm.collection_policy(self.env)
            if self.traces:
                trace_policy(self.policy)
        return reset_policy(self.policy)


def networks_of(policy: PolicyLike) -> dict[str, torch.nn.Module]:
    """Return the networks of a policy by their names; none of random actions."""
    return {"model": policy.model, "actor": policy.actor} if isinstance(policy, Policy) else {}


def weights_of(policy: PolicyLike) -> dict[str, Any]:
    """Return a state_dict of each of a policy's networks."""
    return {name: network.state_dict() for name, network in networks_of(policy).items()}
