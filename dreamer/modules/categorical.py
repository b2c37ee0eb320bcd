"""Distributions over a finite number of outcomes: one-hot vectors, and numbers as two-hot vectors of bins."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import Distribution, register_kl


class OneHotCategorical(Distribution):
    """One-hot vectors over the last axis of normalised log_probs (..., C), with straight-through gradients: the
    gradient of a sample passes to the probabilities.

    Sampled by the inverse of the cumulative probabilities. Unlike torch's, this reads nothing back from a GPU, and does
    not fail where probabilities are NaN, so that the losses show the NaN.
    """

    def __init__(self, log_probs: torch.Tensor, event_dims: int = 1):
        """event_dims: number of last axes that make one event; the event's axes but the last are independent."""
        self.log_probs = log_probs
        self.probs = log_probs.exp()
        self.axes = tuple(range(-event_dims, 0))

    def sample(self, uniform: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]  # one at a time
        """Sample (..., C) without gradient. uniform: numbers (..., 1) in [0, 1); None draws them."""
        cumulative = self.probs.detach().cumsum(-1).contiguous()
        if uniform is None:
            uniform = torch.rand(*cumulative.shape[:-1], 1, dtype=cumulative.dtype, device=cumulative.device)
        index = torch.searchsorted(cumulative, uniform, right=True).clamp_(max=cumulative.shape[-1] - 1)
        return self.one_hot(index)

    def rsample(self, uniform: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]  # one at a time
        """Sample (..., C) with the straight-through gradient. uniform: as for `sample`."""
        sample = self.sample(uniform)
        if self.probs.requires_grad:
            sample = sample + (self.probs - self.probs.detach())
        return sample

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return ln p of one-hot vectors (..., C), summed over the event's axes."""
        return (value * self.log_probs).sum(self.axes)

    def entropy(self) -> torch.Tensor:
        """Return the entropy in nats, summed over the event's axes."""
        return -(self.probs * self.log_probs).sum(self.axes)

    @property
    def mode(self) -> torch.Tensor:
        """The most likely one-hot vector, (..., C)."""
        return self.one_hot(self.probs.argmax(-1, keepdim=True))

    def one_hot(self, index: torch.Tensor) -> torch.Tensor:
        """Return one-hot vectors of class numbers, (..., 1) → (..., C). torch's `one_hot` reads values back."""
        return torch.zeros_like(self.probs).scatter_(-1, index, 1)


@register_kl(OneHotCategorical, OneHotCategorical)  # called by torch's `kl_divergence`
def _kl(p: OneHotCategorical, q: OneHotCategorical) -> torch.Tensor:
    return (p.probs * (p.log_probs - q.log_probs)).sum(p.axes)


class TwoHot:
    """A number as a categorical distribution over `bins` (C,), which are sorted and symmetric about 0.

    DreamerV3, Equations 10 and 11: the mean is the expectation of the bins; the loss is the cross entropy to the
    number's two neighbouring bins.
    """

    def __init__(self, logits: torch.Tensor, bins: torch.Tensor):
        """logits: (..., C)."""
        self.logits, self.bins = logits, bins
        self._log_probs: torch.Tensor | None = None

    def __getitem__(self, index: Any) -> TwoHot:
        """Return the distribution of a part of the batch."""
        return TwoHot(self.logits[index], self.bins)

    @property
    def mean(self) -> torch.Tensor:
        """The mean (...). Each bin is paired with its negative, so that equal probabilities give exactly 0."""
        middle = len(self.bins) // 2
        probs = self.logits.softmax(-1)
        difference = probs[..., middle + 1 :] - probs[..., :middle].flip(-1)
        return (difference * self.bins[middle + 1 :]).sum(-1)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return minus the cross entropy to the two-hot vectors of numbers, (...) → (...)."""
        index = (torch.bucketize(value.contiguous(), self.bins, right=True) - 1).clamp(0, len(self.bins) - 2)
        low, high = self.bins[index], self.bins[index + 1]
        weight_of_high = ((value - low) / (high - low)).clamp(0, 1)
        log_probs = self.log_probs.gather(-1, torch.stack([index, index + 1], -1))
        return torch.lerp(log_probs[..., 0], log_probs[..., 1], weight_of_high)

    @property
    def log_probs(self) -> torch.Tensor:
        """The log-probabilities of the bins, (..., C), computed once for all calls of `log_prob`."""
        if self._log_probs is None:
            self._log_probs = self.logits.log_softmax(-1)
        return self._log_probs


def symlog(x: torch.Tensor) -> torch.Tensor:
    """Return sign(x) ln(1 + |x|) (DreamerV3, Equation 9)."""
    return x.sign() * x.abs().log1p()


def symexp(x: torch.Tensor) -> torch.Tensor:
    """Return sign(x) (exp|x| - 1), the inverse of `symlog`."""
    return x.sign() * x.abs().expm1()
