"""Plan2Explore's ensemble: what the world will look like one step on, and how much its members disagree."""

from functools import partial

import torch
from torch import nn

from dreamer.modules.distributions import UnitNormal
from dreamer.modules.layers import EnsembleLinear, initialize, mlp


class OneStepModel(nn.Module):
    """q(embedding of o_{t+1} | w_k, s_t, a_{t+1}) of K members with weights of their own (Section 3.1).

    s_t (..., F) and the action that leaves it (..., A) → UnitNormal over (K, ..., E), where E is the
    size of the embedding. All members run in one batched call.
    """

    def __init__(self, feature_size, action_size, embedding_size, num_ensemble, hidden_size, num_layers, activation):
        super().__init__()
        linear = partial(EnsembleLinear, num_ensemble)
        sizes = feature_size + action_size, embedding_size, hidden_size
        self.network = mlp(*sizes, num_layers, activation, linear).apply(initialize)
        self.num_ensemble = num_ensemble

    def forward(self, feature, action):
        inputs = torch.cat([feature, action], -1)
        rows = inputs.flatten(0, -2).expand(self.num_ensemble, -1, -1)
        mean = self.network(rows).unflatten(1, inputs.shape[:-1])
        return UnitNormal(mean, event_dims=1)

    def disagreement(self, feature, action, measure):
        """How far the members' predictions are apart, (..., F), (..., A) → (...)."""
        return disagreement(self(feature, action).mean, measure)


def disagreement(mean, measure):
    """How far the members' means (K, ..., E) are apart, averaged over the embedding: (...).

    measure: "variance", 1 / (K - 1) Σ_k (μ_k - μ')² with μ' the mean of the μ_k, as the paper prints
    it, or "std", its square root.
    """
    centre = mean.mean(0).detach()  # nothing is lost: the distances sum to zero, so no gradient passes through it
    squares = (mean - centre).square().sum(0)  # torch's `var` took five times as long
    variance = squares / (len(mean) - 1)
    return (variance if measure == "variance" else variance.clamp(min=1e-20).sqrt()).mean(-1)  # √0 has no gradient
