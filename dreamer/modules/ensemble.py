"""Plan2Explore's ensemble of one-step models, and the disagreement of its members."""

from functools import partial
from typing import Any

import torch
from torch import nn

from dreamer.modules.distributions import UnitNormal
from dreamer.modules.kernels import row_by_row
from dreamer.modules.layers import EnsembleLinear, bound_action, mlp


class OneStepModel(nn.Module):
    """K members q(target at t + 1 | w_k, s_t, a_{t+1}) with weights of their own (Plan2Explore, Section 3.1).

    s_t (..., F) and the action that leaves it (..., A) → UnitNormal over (K, ..., E), where E is the target's size. The
    target is the embedding of o_{t+1} or, as in DreamerV2's code, z_{t+1}. An action beyond [-1, 1] counts as -1 or 1,
    as in DreamerV3's dynamics: the replay holds no others. All members run in one batched call.
    """

    def __init__(self, feature_size: int, action_size: int, target_size: int, num_ensemble: int, **layers: Any):
        """num_ensemble: K. layers: arguments of `mlp`, for each member; they have no norm."""
        super().__init__()
        linear = partial(EnsembleLinear, num_ensemble)
        self.network = mlp(feature_size + action_size, target_size, **layers, linear=linear)
        self.num_ensemble = num_ensemble

    def forward(self, feature: torch.Tensor, action: torch.Tensor) -> UnitNormal:
        inputs = torch.cat([feature, bound_action(action)], -1)
        rows = inputs.flatten(0, -2).expand(self.num_ensemble, -1, -1)
        mean = self.network(rows).unflatten(1, inputs.shape[:-1])
        return UnitNormal(mean, event_dims=1)

    def disagreement(self, feature: torch.Tensor, action: torch.Tensor, measure: str) -> torch.Tensor:
        """Return the disagreement of the members' predictions, (..., F), (..., A) → (...). measure: as for the
        function `disagreement`. The gradient reaches feature and action, not the members' weights."""
        return row_by_row(lambda *rows: disagreement(self(*rows).mean, measure), feature, action)


def disagreement(mean: torch.Tensor, measure: str) -> torch.Tensor:
    """Return the spread of the members' means (K, ..., E), averaged over the embedding: (...).

    measure: "variance", 1 / (K - 1) Σ_k (μ_k - μ')² with μ' the mean of the μ_k, as the paper prints it; "std", its
    square root; or "population_std", the root of 1 / K Σ_k (μ_k - μ')², as in DreamerV2's code.
    """
    centre = mean.mean(0).detach()  # its gradient is zero: the distances to it sum to zero
    sum_of_squares = (mean - centre).square().sum(0)  # torch's `var` took five times as long
    denominator = len(mean) if measure == "population_std" else len(mean) - 1
    variance = sum_of_squares / denominator
    if measure == "variance":
        return variance.mean(-1)
    return variance.clamp(min=1e-20).sqrt().mean(-1)  # √0 has no gradient
