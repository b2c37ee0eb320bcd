"""The critic v(s): feature to expected λ-return."""

from torch import nn

from dreamer.modules.distributions import UnitNormal
from dreamer.modules.layers import initialize, mlp


class Critic(nn.Module):
    """(..., F) → UnitNormal (...), whose mean is the value: of s_τ, the reward on arriving at it included."""

    def __init__(self, feature_size, **network):
        super().__init__()
        self.network = mlp(feature_size, 1, **network).apply(initialize)

    def forward(self, feature):
        return UnitNormal(self.network(feature).squeeze(-1), event_dims=0)
