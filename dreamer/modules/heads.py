"""Heads: what is read off a latent state, as a distribution."""

import torch
from torch import nn
from torch.distributions import Bernoulli

from dreamer.modules.distributions import TwoHot, UnitNormal, symexp
from dreamer.modules.layers import mlp


class Head(nn.Module):
    """(..., F) → a distribution over (...): an MLP, and what makes a distribution of its output.

    distribution: a class without arguments, with `output_size`, which maps (..., output_size) to a distribution.
    layers: of the MLP. Three of them make Dreamer: the reward model p(r_t | s_t) of the reward received on arriving
    at s_t, the continue model p(the task goes on after s_t), and the critic v(s_τ).
    """

    def __init__(self, feature_size, distribution, **layers):
        super().__init__()
        self.network = mlp(feature_size, distribution.output_size, **layers)
        self.distribution = distribution()

    def forward(self, feature):
        return self.distribution(self.network(feature))


class NormalHead(nn.Module):
    """(..., 1) → UnitNormal (...)."""

    output_size = 1

    def forward(self, output):
        return UnitNormal(output.squeeze(-1), event_dims=0)


class BernoulliHead(nn.Module):
    """(..., 1), the logit → Bernoulli (...)."""

    output_size = 1

    def forward(self, output):
        return Bernoulli(logits=output.squeeze(-1))


class SymexpTwoHot(nn.Module):
    """(..., 255), logits → TwoHot (...), with bins that are symexp of equal steps from -20 to 20."""

    output_size = 255

    def __init__(self):
        super().__init__()
        negative = symexp(torch.linspace(-20, 0, self.output_size // 2 + 1))
        self.register_buffer("bins", torch.cat([negative, -negative[:-1].flip(0)]), persistent=False)

    def forward(self, output):
        return TwoHot(output, self.bins)


NUMBERS = {"normal": NormalHead, "two_hot": SymexpTwoHot}
