"""The distributions that torch.distributions lacks, or computes wastefully at our sizes."""

import math

import torch
from torch.distributions import (
    Distribution,
    Independent,
    Normal,
    OneHotCategoricalStraightThrough,
    TanhTransform,
    TransformedDistribution,
)
from torch.nn import functional

Distribution.set_default_validate_args(False)  # validation reads values back, and so stalls a GPU


class UnitNormal:
    """Normal with unit standard deviation, independent over the last `event_dims` axes of `mean`.

    The negative log-likelihood is half the squared error plus a constant. torch's Normal would
    build five more tensors as large as the batch of images to arrive at the same number.
    """

    def __init__(self, mean, event_dims):
        self.mean = mean
        self.event_dims = event_dims

    def __getitem__(self, index):
        """That of a part of the batch."""
        return UnitNormal(self.mean[index], self.event_dims)

    def log_prob(self, value):
        """ln p(value), with the event axes summed: shape `mean.shape[:-event_dims]`."""
        error = (self.mean - value).square()
        if self.event_dims:
            error = error.sum(tuple(range(-self.event_dims, 0)))
        event_size = math.prod(self.mean.shape[self.mean.dim() - self.event_dims :])
        return -0.5 * error - 0.5 * math.log(2 * math.pi) * event_size


def diagonal_normal(mean, std):
    """Normal with independent components over the last axis; mean, std (..., S)."""
    return Independent(Normal(mean, std), 1)


class TanhNormal(TransformedDistribution):
    """tanh(x) of x ~ Normal(mean, std), independent over the last axis; mean, std (..., A)."""

    def __init__(self, mean, std):
        transform = TanhTransform(cache_size=1)  # log_prob of its own sample needs no arctanh
        super().__init__(diagonal_normal(mean, std), transform)

    def entropy(self):
        """(...), in nats: exact for x, and the mean of ln |dy/dx| estimated from one sample. Differentiable."""
        x = self.base_dist.rsample()
        return self.base_dist.entropy() + self.transforms[0].log_abs_det_jacobian(x, x.tanh()).sum(-1)

    @property
    def mode(self):
        """The action of highest density, (..., A), exact where the released code takes the best of 100 samples.

        With y = tanh(x), ln p(y) = ln N(x; mean, std) - ln(1 - tanh²x) is stationary where
        x = mean + 2 std² tanh(x). On the mean's side of zero there is one such x; Newton's method,
        started beyond it, descends to it. If the mean is 0 there are two as good: it takes the upper.
        """
        mean, std = self.base_dist.base_dist.loc, self.base_dist.base_dist.scale
        sign = torch.where(mean < 0, -1.0, 1.0)
        mean, spread = mean.abs(), 2 * std.square()
        x = mean + spread
        for _ in range(20):
            tanh = x.tanh()
            slope = spread * (1 - tanh.square()) - 1
            x = x - (mean + spread * tanh - x) / slope.clamp(max=-1e-3)
        return sign * x.tanh()


class OneHotCategorical(OneHotCategoricalStraightThrough):
    """One-hot vectors whose gradient passes straight through to the probabilities. Samples are the Gumbel maximum,
    which reads nothing back from a GPU; of probabilities that are NaN, too, so that the losses tell of them."""

    def sample(self, sample_shape=()):
        gumbel = -self.logits.new_empty(self._extended_shape(sample_shape)).exponential_().log()
        return functional.one_hot((self.logits + gumbel).argmax(-1), self.logits.shape[-1]).to(self.logits.dtype)
