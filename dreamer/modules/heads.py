"""Heads: what is read off a latent state, as a distribution."""

from torch import nn
from torch.distributions import Bernoulli

from dreamer.modules.distributions import UnitNormal
from dreamer.modules.layers import initialize, mlp


class Head(nn.Module):
    """(..., F) → a distribution over (...): an MLP, and `distribution`, which takes its output (..., output_size).

    Three of them make Dreamer: the reward model p(r_t | s_t) of the reward received on arriving at s_t, the
    continue model p(the task goes on after s_t), and the critic v(s_τ), the reward on arriving at s_τ included.
    """

    def __init__(self, feature_size, distribution, hidden_size, num_layers, activation, output_size=1):
        super().__init__()
        self.network = mlp(feature_size, output_size, hidden_size, num_layers, activation).apply(initialize)
        self.distribution = distribution

    def forward(self, feature):
        return self.distribution(self.network(feature))


def normal(output):
    """(..., 1) → UnitNormal (...)."""
    return UnitNormal(output.squeeze(-1), event_dims=0)


def bernoulli(output):
    """(..., 1), the logit → Bernoulli (...)."""
    return Bernoulli(logits=output.squeeze(-1))
