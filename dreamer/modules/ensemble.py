"""Plan2Explore's ensemble: what the world will look like one step on, and how much its members disagree."""

from functools import partial

import torch
from torch import nn

from dreamer.modules.distributions import UnitNormal
from dreamer.modules.kernels import row_by_row
from dreamer.modules.layers import EnsembleLinear, bounded, mlp


class OneStepModel(nn.Module):
    """q(what comes at t + 1 | w_k, s_t, a_{t+1}) of K members with weights of their own (Section 3.1): the embedding
    of o_{t+1} or, as in DreamerV2's code, z_{t+1}.

    s_t (..., F) and the action that leaves it (..., A) → UnitNormal over (K, ..., E), where E is the
    target's size. An action beyond [-1, 1] counts as -1 or 1, as in DreamerV3's dynamics: the replay holds no others.
    All members run in one batched call. layers: of each member; they have no norm.
    """

    def __init__(self, feature_size, action_size, target_size, num_ensemble, **layers):
        super().__init__()
        linear = partial(EnsembleLinear, num_ensemble)
        self.network = mlp(feature_size + action_size, target_size, **layers, linear=linear)
        self.num_ensemble = num_ensemble

    def forward(self, feature, action):
        inputs = torch.cat([feature, bounded(action)], -1)
        rows = inputs.flatten(0, -2).expand(self.num_ensemble, -1, -1)
        mean = self.network(rows).unflatten(1, inputs.shape[:-1])
        return UnitNormal(mean, event_dims=1)

    def disagreement(self, feature, action, measure):
        """How far the members' predictions are apart, (..., F), (..., A) → (...). Its gradient reaches the inputs and
        stops at the members' weights. See `disagreement` for the measure."""
        return row_by_row(lambda *rows: disagreement(self(*rows).mean, measure), feature, action)


def disagreement(mean, measure):
    """How far the members' means (K, ..., E) are apart, averaged over the embedding: (...).

    measure: "variance", 1 / (K - 1) Σ_k (μ_k - μ')² with μ' the mean of the μ_k, as the paper prints
    it, "std", its square root, or "population_std", the root of 1 / K Σ_k (μ_k - μ')², as in DreamerV2's code.
    """
    centre = mean.mean(0).detach()  # nothing is lost: the distances sum to zero, so no gradient passes through it
    squares = (mean - centre).square().sum(0)  # torch's `var` took five times as long
    variance = squares / (len(mean) if measure == "population_std" else len(mean) - 1)
    return (variance if measure == "variance" else variance.clamp(min=1e-20).sqrt()).mean(-1)  # √0 has no gradient
