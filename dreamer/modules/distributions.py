"""The distributions that torch.distributions lacks, or computes wastefully at our sizes."""

import math
from functools import cached_property

import torch
from torch.distributions import Distribution, register_kl
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


class SquaredError(UnitNormal):
    """Its "log-likelihood" is the negative squared error, without the half and the constant (DreamerV3)."""

    def __getitem__(self, index):
        return SquaredError(self.mean[index], self.event_dims)

    def log_prob(self, value):
        error = (self.mean - value).square()
        return -error.sum(tuple(range(-self.event_dims, 0))) if self.event_dims else -error


class DiagonalNormal(Distribution):
    """Normal with independent components over the last axis; loc, scale (..., S).

    torch's takes longer to build than small networks to compute.
    """

    def __init__(self, loc, scale):
        self.loc, self.scale = loc, scale

    def rsample(self):
        """(..., S), differentiable in both parameters."""
        return self.loc + self.scale * torch.randn_like(self.scale)

    def sample(self):
        return self.rsample().detach()

    def log_prob(self, value):
        """(..., S) → (...)."""
        return (_log_density((value - self.loc) / self.scale) - self.scale.log()).sum(-1)

    def entropy(self):
        """(...), in nats."""
        return (0.5 * math.log(2 * math.pi * math.e) + self.scale.log()).sum(-1)

    @property
    def mean(self):
        """(..., S), the mode, too."""
        return self.loc

    mode = mean


@register_kl(DiagonalNormal, DiagonalNormal)
def _kl_normal(p, q):
    ratio, distance = (p.scale / q.scale).square(), ((p.loc - q.loc) / q.scale).square()
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)


class TanhNormal:
    """tanh(x) of x ~ Normal(mean, std), independent over the last axis; mean, std (..., A)."""

    EDGE = 1e-6

    def __init__(self, mean, std):
        self.normal = DiagonalNormal(mean, std)

    def rsample(self):
        """(..., A), differentiable in both parameters."""
        return self.normal.rsample().tanh()

    def sample(self):
        return self.rsample().detach()

    def log_prob(self, value):
        """(..., A) → (...). Rounding brings samples to the ends, where the density has none: they count as EDGE off."""
        x = value.clamp(-1 + self.EDGE, 1 - self.EDGE).atanh()
        return self.normal.log_prob(x) - _log_slope(x).sum(-1)

    def entropy(self):
        """(...), in nats: exact for x, and the mean of ln |dy/dx| estimated from one sample. Differentiable."""
        return self.normal.entropy() + _log_slope(self.normal.rsample()).sum(-1)

    @property
    def mode(self):
        """The action of highest density, (..., A), exact where the released code takes the best of 100 samples.

        With y = tanh(x), ln p(y) = ln N(x; mean, std) - ln(1 - tanh²x) is stationary where
        x = mean + 2 std² tanh(x). On the mean's side of zero there is one such x; Newton's method,
        started beyond it, descends to it, in 20 steps at most; on a CPU, where that can be seen at no cost, until it
        hardly moves. If the mean is 0 there are two as good: it takes the upper.
        """
        mean, std = self.normal.loc, self.normal.scale
        sign = torch.where(mean < 0, -1.0, 1.0)
        mean, spread = mean.abs(), 2 * std.square()
        x = mean + spread
        for _ in range(20):
            tanh = x.tanh()
            slope = spread * (1 - tanh.square()) - 1
            before, x = x, x - (mean + spread * tanh - x) / slope.clamp(max=-1e-3)
            if x.device.type == "cpu" and (before - x).max() < 1e-6:
                break
        return sign * x.tanh()


class TruncatedNormal:
    """Normal(mean, std) truncated to [-1, 1], independent over the last axis; mean in [-1, 1], std (..., A).

    DreamerV2's actor. Samples keep EDGE from the ends; their gradient passes straight through that.
    """

    EDGE = 1e-6

    def __init__(self, mean, std):
        self.mean_before, self.std = mean, std
        self.low, self.high = (-1 - mean) / std, (1 - mean) / std
        self.low_cdf = torch.special.ndtr(self.low)
        self.mass = torch.special.ndtr(self.high) - self.low_cdf

    def rsample(self):
        """(..., A), by the inverse of the distribution function.

        The gradient is 1 to the mean and (sample - mean) / std to the std, as TensorFlow registers it: as if the ends
        moved with the mean and the std. The exact gradient, with the ends fixed, is smaller: a quarter of it to the
        mean at mean 0 and std 1.1.
        """
        with torch.no_grad():
            quantile = self.low_cdf + torch.rand_like(self.std) * self.mass
            within = torch.finfo(quantile.dtype)  # at 0 and 1, which rounding reaches, the inverse is infinite
            distance = torch.special.ndtri(quantile.clamp(within.tiny, 1 - within.eps / 2))
        sample = self.mean_before + self.std * distance
        return sample + (sample.clamp(-1 + self.EDGE, 1 - self.EDGE) - sample).detach()

    def sample(self):
        return self.rsample().detach()

    def log_prob(self, value):
        """(..., A) → (...)."""
        distance = (value - self.mean_before) / self.std
        return (_log_density(distance) - self.std.log() - self.mass.log()).sum(-1)

    def entropy(self):
        """(...), in nats, exact."""
        edges = (self.low * _log_density(self.low).exp() - self.high * _log_density(self.high).exp()) / (2 * self.mass)
        return (0.5 * math.log(2 * math.pi * math.e) + self.std.log() + self.mass.log() + edges).sum(-1)

    @property
    def mode(self):
        """(..., A)."""
        return self.mean_before


def _log_slope(x):
    """ln of the derivative of tanh: ln(1 - tanh²x), exact where tanh x rounds to 1."""
    return 2 * (math.log(2) - x - functional.softplus(-2 * x))


def _log_density(x):
    """Of the standard normal."""
    return -0.5 * x.square() - 0.5 * math.log(2 * math.pi)


class OneHotCategorical(Distribution):
    """One-hot vectors over the last axis of log_probs (..., C), normalised; independent over the last `event_dims`
    axes less one. Their gradient passes straight through to the probabilities.

    A sample is where a uniform number falls among the sums of the probabilities: that reads nothing back from a GPU,
    and there is one of probabilities that are NaN, too, so that the losses tell of them.
    """

    def __init__(self, log_probs, event_dims=1):
        self.log_probs, self.axes = log_probs, tuple(range(-event_dims, 0))
        self.probs = log_probs.exp()

    def sample(self):
        sums = self.probs.detach().cumsum(-1).contiguous()
        uniform = torch.rand(*sums.shape[:-1], 1, dtype=sums.dtype, device=sums.device)
        index = torch.searchsorted(sums, uniform, right=True).clamp_(max=sums.shape[-1] - 1)
        return self.one_hot(index)

    def rsample(self):
        return self.sample() + (self.probs - self.probs.detach())

    def log_prob(self, value):
        return (value * self.log_probs).sum(self.axes)

    def entropy(self):
        """In nats."""
        return -(self.probs * self.log_probs).sum(self.axes)

    @property
    def mode(self):
        return self.one_hot(self.probs.argmax(-1, keepdim=True))

    def one_hot(self, index):
        """(..., 1) → (..., C). torch's function of this name reads values back."""
        return torch.zeros_like(self.probs).scatter_(-1, index, 1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _kl(p, q):
    return (p.probs * (p.log_probs - q.log_probs)).sum(p.axes)


class TwoHot:
    """A number as a categorical distribution over `bins` (C,), sorted and symmetric about 0; logits (..., C).

    DreamerV3, Equation 9: its loss is the cross entropy to the number's two neighbouring bins, its mean that of the
    bins. Mirror images are added first, so that equal probabilities give exactly 0.
    """

    def __init__(self, logits, bins):
        self.logits, self.bins = logits, bins

    def __getitem__(self, index):
        """That of a part of the batch."""
        return TwoHot(self.logits[index], self.bins)

    @property
    def mean(self):
        """(...)."""
        middle = len(self.bins) // 2
        probs = self.logits.softmax(-1)
        pairs = probs[..., middle + 1 :] - probs[..., :middle].flip(-1)
        return (pairs * self.bins[middle + 1 :]).sum(-1)

    def log_prob(self, value):
        """Minus the cross entropy, (...) → (...)."""
        below = (torch.bucketize(value.contiguous(), self.bins, right=True) - 1).clamp(0, len(self.bins) - 2)
        low, high = self.bins[below], self.bins[below + 1]
        share = ((value - low) / (high - low)).clamp(0, 1)
        neighbours = self.log_probs.gather(-1, torch.stack([below, below + 1], -1))
        return torch.lerp(neighbours[..., 0], neighbours[..., 1], share)

    @cached_property
    def log_probs(self):
        """(..., C), of the bins; computed once for all numbers that are asked for."""
        return self.logits.log_softmax(-1)


def symlog(x):
    """sign(x) ln(1 + |x|), DreamerV3, Equation 8."""
    return x.sign() * x.abs().log1p()


def symexp(x):
    """Its inverse."""
    return x.sign() * x.abs().expm1()
