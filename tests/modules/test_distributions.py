"""Distributions. test_golden.py checks KL, entropies and action densities of diagonal normals."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution, kl_divergence

from dreamer.modules.categorical import OneHotCategorical
from dreamer.modules.distributions import DiagonalNormal, TanhNormal, TruncatedNormal, UnitNormal
from tests.simulated_cuda_graph import Tape


@pytest.mark.parametrize("event_dims", [0, 1, 3])
def test_unit_normal_log_prob(event_dims):
    mean, value = torch.randn(2, 5, 3, 4, 4), torch.randn(2, 5, 3, 4, 4)
    expected = torch.distributions.Normal(mean, 1.0).log_prob(value)
    for _ in range(event_dims):
        expected = expected.sum(-1)
    torch.testing.assert_close(UnitNormal(mean, event_dims).log_prob(value), expected)


def density(action, mean, std):
    """Return the density of y = tanh(x), x ~ N(mean, std), by the change of variables."""
    x = torch.atanh(action)
    normal = torch.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    return normal / (1 - action**2)


def test_diagonal_and_tanh_normal_match_torch():
    torch.manual_seed(0)
    loc, scale = torch.randn(2, 4, 3).double(), torch.rand(2, 4, 3).double() + 0.1
    distribution, other = DiagonalNormal(loc[0], scale[0]), DiagonalNormal(loc[1], scale[1])
    torch_distribution, torch_other = (
        Independent(Normal(*parameters), 1) for parameters in zip(loc, scale, strict=True)
    )
    value = torch.randn(4, 3).double()
    torch.testing.assert_close(distribution.log_prob(value), torch_distribution.log_prob(value))
    torch.testing.assert_close(distribution.entropy(), torch_distribution.entropy())
    torch.testing.assert_close(kl_divergence(distribution, other), kl_divergence(torch_distribution, torch_other))
    squashed = TransformedDistribution(torch_distribution, TanhTransform())
    torch.testing.assert_close(TanhNormal(loc[0], scale[0]).log_prob(value.tanh()), squashed.log_prob(value.tanh()))
    samples = DiagonalNormal(*(part[0, 0].expand(50_000, 3) for part in (loc, scale))).rsample()
    torch.testing.assert_close(samples.mean(0), loc[0, 0], atol=0.03, rtol=0)
    torch.testing.assert_close(samples.std(0), scale[0, 0], atol=0.02, rtol=0)


def test_tanh_normal_samples_have_a_gradient_and_a_finite_log_prob():
    mean, std = torch.zeros(1000, 2, requires_grad=True), torch.full((1000, 2), 5.0)
    distribution = TanhNormal(mean, std)
    action = distribution.rsample()
    assert distribution.log_prob(action).isfinite().all(), "saturated samples must keep a density"
    action.sum().backward()
    torch.testing.assert_close(mean.grad, 1 - action.detach() ** 2, atol=1e-5, rtol=0)


def test_tanh_normal_entropy_and_its_gradient_match_the_integral():
    """The reference is the numerical integral of -p ln p and its derivative with respect to the std."""
    grid = torch.linspace(-1, 1, 200_001).double()[1:-1]

    def integral(std):
        p = density(grid, torch.tensor(0.3).double(), std)
        return torch.trapezoid(-p * p.clamp(min=1e-300).log(), grid)

    std = torch.tensor(0.8).double().requires_grad_()
    exact = integral(std)
    estimate = TanhNormal(torch.full((100_000, 1), 0.3).double(), std.expand(100_000, 1)).entropy().mean()
    assert estimate.item() == pytest.approx(exact.item(), abs=0.01)
    gradients = [torch.autograd.grad(value, std)[0].item() for value in (estimate, exact)]
    assert gradients[0] == pytest.approx(gradients[1], abs=0.03)


@pytest.mark.parametrize("std", [0.1, 0.5, 0.7071, 0.72, 1.0, 2.0])
@pytest.mark.parametrize("mean", [-2.0, -0.3, 0.001, 0.05, 0.8])
def test_tanh_normal_mode_is_the_peak_of_the_density(mean, std):
    mean, std = torch.tensor([mean]).double(), torch.tensor([std]).double()
    grid = torch.linspace(-1, 1, 200_001).double()[1:-1]
    peak = grid[density(grid, mean, std).argmax()]
    assert TanhNormal(mean, std).mode.item() == pytest.approx(peak.item(), abs=1e-3)


def test_tanh_normal_mode_stays_finite_at_the_extremes():
    mean = torch.tensor([-5.0, 0.0, 5.0, 1e-8, 0.0])
    std = torch.tensor([1e-4, 1e-4, 20.0, 1.0, 0.7072])
    mode = TanhNormal(mean, std).mode
    assert mode.isfinite().all() and (mode.abs() <= 1).all()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_truncated_normal_is_finite_at_the_ends_of_the_uniform_range(uniform, monkeypatch):
    """One in 16 million uniform numbers is exactly 0. Sample and gradient must be finite there."""
    monkeypatch.setattr(torch, "rand_like", lambda like: torch.full_like(like, uniform))
    std, mean = torch.tensor([0.1, 0.3, 2.1])[:, None], torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
    parameters = mean.expand(3, 5).clone().requires_grad_(), std.expand(3, 5).clone().requires_grad_()
    sample = TruncatedNormal(*parameters).rsample()
    assert sample.isfinite().all() and sample.abs().max() < 1
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(sample.sum(), parameters))


def test_one_hot_samples_follow_their_probabilities():
    """A class with probability 0 is never drawn. NaN probabilities also give a one-hot sample."""
    probabilities = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.0, 0.1, 0.0, 0.9]])
    samples = OneHotCategorical(probabilities.log().expand(50_000, 2, 4)).sample()
    assert (samples.sum(-1) == 1).all() and set(samples.unique().tolist()) == {0, 1}
    torch.testing.assert_close(samples.mean(0), probabilities, atol=0.01, rtol=0)
    assert OneHotCategorical(torch.full((5, 3), math.nan)).sample().sum() == 5


def test_one_hot_sampling_can_be_recorded_in_a_cuda_graph():
    """Sample and mode read no value back to the host. torch's Categorical and one_hot would."""
    log_probs = torch.randn(7, 3, 5).log_softmax(-1)
    with Tape():
        distribution = OneHotCategorical(log_probs, event_dims=2)
        sample, mode = distribution.sample(), distribution.mode
    assert (sample.sum(-1) == 1).all() and (mode.sum(-1) == 1).all()
    assert torch.equal(mode.argmax(-1), distribution.probs.argmax(-1))


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_one_hot_samples_at_the_ends_of_what_is_drawn(uniform, monkeypatch):
    """A class without probability is never taken, and there is one where rounding leaves the sum below the number."""
    monkeypatch.setattr(torch, "rand", lambda *shape, **kind: torch.full(shape, uniform))
    probabilities = torch.tensor([[0.0, 0.5, 0.5 - 1e-6], [1.0, 0.0, 0.0]])
    samples = OneHotCategorical(probabilities.log()).sample()
    assert samples.tolist() == [[0, 1, 0] if uniform == 0 else [0, 0, 1], [1, 0, 0]]
