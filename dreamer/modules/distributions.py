"""Normal distributions that torch.distributions lacks, or computes slowly at our sizes; and the distributions'
interfaces."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch.distributions import Distribution, register_kl
from torch.nn import functional

Distribution.set_default_validate_args(False)  # validation reads values back, and so stalls a GPU


class Prediction(Protocol):
    """A distribution that a head or a decoder returns. It has a mean, and parts of its batch can be taken."""

    @property
    def mean(self) -> Any: ...

    def log_prob(self, value: Any) -> torch.Tensor: ...

    def __getitem__(self, index: Any) -> Prediction: ...


class ActionDistribution(Protocol):
    """A distribution over actions (..., A), which an actor returns."""

    def rsample(self) -> torch.Tensor: ...

    def sample(self) -> torch.Tensor: ...

    def log_prob(self, value: torch.Tensor) -> torch.Tensor: ...

    def entropy(self) -> torch.Tensor: ...

    @property
    def mode(self) -> torch.Tensor: ...


class UnitNormal:
    """Normal with unit standard deviation, independent over the last `event_dims` axes of `mean`.

    The negative log-likelihood is half the squared error plus a constant. torch's Normal would build five more tensors
    as large as the batch of images to arrive at the same number.
    """

    def __init__(self, mean: torch.Tensor, event_dims: int):
        self.mean = mean
        self.event_dims = event_dims

    def __getitem__(self, index: Any) -> UnitNormal:
        """Return the distribution of a part of the batch."""
        return UnitNormal(self.mean[index], self.event_dims)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return ln p(value), summed over the event's axes: shape `mean.shape[:-event_dims]`."""
        error = (self.mean - value).square()
        if self.event_dims:
            error = error.sum(tuple(range(-self.event_dims, 0)))
        event_size = math.prod(self.mean.shape[self.mean.dim() - self.event_dims :])
        return -0.5 * error - 0.5 * math.log(2 * math.pi) * event_size


class SquaredError(UnitNormal):
    """A "distribution" whose log-likelihood is the negative squared error, without the half and the constant
    (DreamerV3)."""

    def __getitem__(self, index: Any) -> SquaredError:
        return SquaredError(self.mean[index], self.event_dims)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        error = (self.mean - value).square()
        if self.event_dims:
            error = error.sum(tuple(range(-self.event_dims, 0)))
        return -error


class DiagonalNormal(Distribution):
    """Normal with independent components over the last axis.

    To build torch's Independent(Normal) takes longer than to compute a small network.
    """

    def __init__(self, loc: torch.Tensor, scale: torch.Tensor):
        """loc, scale: (..., S)."""
        self.loc, self.scale = loc, scale

    def rsample(self) -> torch.Tensor:  # type: ignore[override]  # one at a time
        """Sample (..., S), differentiable in both parameters."""
        return self.loc + self.scale * torch.randn_like(self.scale)

    def sample(self) -> torch.Tensor:  # type: ignore[override]  # one at a time
        """Sample (..., S) without gradient."""
        return self.rsample().detach()

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return ln p(value), (..., S) → (...)."""
        return (_log_density((value - self.loc) / self.scale) - self.scale.log()).sum(-1)

    def entropy(self) -> torch.Tensor:
        """Return the entropy (...), in nats."""
        return (0.5 * math.log(2 * math.pi * math.e) + self.scale.log()).sum(-1)

    @property
    def mean(self) -> torch.Tensor:
        """The mean (..., S), which is also the mode."""
        return self.loc

    mode = mean


@register_kl(DiagonalNormal, DiagonalNormal)  # called by torch's `kl_divergence`
def _kl_normal(p: DiagonalNormal, q: DiagonalNormal) -> torch.Tensor:
    variance_ratio = (p.scale / q.scale).square()
    distance = ((p.loc - q.loc) / q.scale).square()
    return 0.5 * (variance_ratio + distance - 1 - variance_ratio.log()).sum(-1)


class TanhNormal:
    """Distribution of tanh(x) with x ~ Normal(mean, std), independent over the last axis (Dreamer, Equation 3)."""

    EDGE = 1e-6

    def __init__(self, mean: torch.Tensor, std: torch.Tensor):
        """mean, std: (..., A)."""
        self.normal = DiagonalNormal(mean, std)

    def rsample(self) -> torch.Tensor:
        """Sample (..., A), differentiable in both parameters."""
        return self.normal.rsample().tanh()

    def sample(self) -> torch.Tensor:
        """Sample (..., A) without gradient."""
        return self.rsample().detach()

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return ln p(value), (..., A) → (...).

        Samples may be rounded to -1 or 1, where the density is not finite, so values are clamped to EDGE from them.
        """
        x = value.clamp(-1 + self.EDGE, 1 - self.EDGE).atanh()
        return self.normal.log_prob(x) - _log_slope(x).sum(-1)

    def entropy(self) -> torch.Tensor:
        """Return the entropy (...), in nats: exact for x, the mean of ln |dy/dx| estimated from one sample.

        Differentiable in both parameters.
        """
        return self.normal.entropy() + _log_slope(self.normal.rsample()).sum(-1)

    @property
    def mode(self) -> torch.Tensor:
        """The action of highest density, (..., A), exact; the released code takes the best of 100 samples.

        With y = tanh(x), ln p(y) = ln N(x; mean, std) - ln(1 - tanh²x) is stationary where x = mean + 2 std² tanh(x).
        On the mean's side of zero there is one such x. Newton's method, started beyond it, descends to it in at most 20
        steps. If the mean is 0 there are two maxima; this is the upper one.
        """
        mean, std = self.normal.loc, self.normal.scale
        sign = torch.where(mean < 0, -1.0, 1.0)
        mean, two_variances = mean.abs(), 2 * std.square()
        # A GPU would wait for the host to read a value, and a traced program cannot depend on one.
        may_stop_early = mean.device.type == "cpu" and not torch.compiler.is_compiling()
        x = mean + two_variances
        for _ in range(20):
            tanh = x.tanh()
            slope = two_variances * (1 - tanh.square()) - 1
            step = (mean + two_variances * tanh - x) / slope.clamp(max=-1e-3)
            previous_x = x
            x = x - step
            if may_stop_early and (previous_x - x).max() < 1e-6:
                break
        return sign * x.tanh()


class TruncatedNormal:
    """Normal(mean, std) truncated to [-1, 1], independent over the last axis (DreamerV2's actor).

    Samples are clamped to EDGE from -1 and 1; their gradient ignores the clamping.
    """

    EDGE = 1e-6

    def __init__(self, mean: torch.Tensor, std: torch.Tensor):
        """mean: (..., A), in [-1, 1], before truncation. std: (..., A), before truncation."""
        self.mean_before, self.std = mean, std
        self.low, self.high = (-1 - mean) / std, (1 - mean) / std
        self.low_cdf = torch.special.ndtr(self.low)
        self.mass = torch.special.ndtr(self.high) - self.low_cdf

    def rsample(self) -> torch.Tensor:
        """Sample (..., A) by the inverse of the cumulative distribution function.

        The gradient is 1 to the mean and (sample - mean) / std to the std, as TensorFlow registers it: as if the ends
        moved with the mean and the std. The exact gradient, with the ends fixed, is smaller: a quarter of it to the
        mean at mean 0 and std 1.1.
        """
        with torch.no_grad():
            quantile = self.low_cdf + torch.rand_like(self.std) * self.mass
            limits = torch.finfo(quantile.dtype)
            quantile = quantile.clamp(limits.tiny, 1 - limits.eps / 2)  # at 0 and 1 the inverse is infinite
            distance = torch.special.ndtri(quantile)
        sample = self.mean_before + self.std * distance
        return sample + (sample.clamp(-1 + self.EDGE, 1 - self.EDGE) - sample).detach()

    def sample(self) -> torch.Tensor:
        """Sample (..., A) without gradient."""
        return self.rsample().detach()

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return ln p(value), (..., A) → (...)."""
        distance = (value - self.mean_before) / self.std
        return (_log_density(distance) - self.std.log() - self.mass.log()).sum(-1)

    def entropy(self) -> torch.Tensor:
        """Return the exact entropy (...), in nats."""
        edges = (self.low * _log_density(self.low).exp() - self.high * _log_density(self.high).exp()) / (2 * self.mass)
        return (0.5 * math.log(2 * math.pi * math.e) + self.std.log() + self.mass.log() + edges).sum(-1)

    @property
    def mode(self) -> torch.Tensor:
        """The action of highest density, (..., A)."""
        return self.mean_before


def _log_slope(x: torch.Tensor) -> torch.Tensor:
    """Return ln(1 - tanh²x), the log of the derivative of tanh, exact where tanh x rounds to 1."""
    return 2 * (math.log(2) - x - functional.softplus(-2 * x))


def _log_density(x: torch.Tensor) -> torch.Tensor:
    """Return the log density of the standard normal."""
    return -0.5 * x.square() - 0.5 * math.log(2 * math.pi)
