"""Categorical latents. test_golden_v2.py and test_golden_v3.py check their KL and its gradients."""

import math

import pytest
import torch
from torch.distributions import kl_divergence

from dreamer.modules.kernels import over_classes
from dreamer.modules.latents import Categorical, CategoricalModel, mixed_log_probs

G, C = 3, 4


def sure_logits(place, classes=32):
    """Return logits that give nearly all probability to one class."""
    logits = torch.zeros(2, classes)
    logits[:, place] = 50.0
    return logits


@pytest.mark.parametrize("unimix, expected", [(0.01, 7.98), (0.0, 50.0)])
def test_unimix_bounds_the_kl(unimix, expected):
    """Posterior and prior prefer different classes; the KL is the sum over two groups."""
    posterior, prior = (Categorical(mixed_log_probs(sure_logits(place), unimix)).distribution for place in (3, 20))
    assert kl_divergence(posterior, prior).item() == pytest.approx(2 * expected, rel=1e-3)


def test_unimix_applies_to_samples_entropy_and_probabilities():
    torch.manual_seed(0)
    latent = Categorical(mixed_log_probs(sure_logits(0, classes=4).expand(20_000, 2, 4), unimix=0.2))
    expected = torch.tensor([0.85, 0.05, 0.05, 0.05])
    torch.testing.assert_close(latent.distribution.probs[0, 0], expected)
    torch.testing.assert_close(latent.sample().unflatten(-1, (2, 4)).mean(0)[1], expected, atol=0.01, rtol=0)
    entropy = -2 * (expected * expected.log()).sum()
    torch.testing.assert_close(latent.distribution.entropy()[0], entropy)


@pytest.mark.parametrize("unimix", [0.0, 0.01, 0.3])
def test_sample_gradient_equals_the_gradient_of_the_mixed_probabilities(unimix):
    """The gradient does not depend on the class that was drawn."""
    logits, weight = torch.randn(5, G, C, requires_grad=True), torch.randn(5, G * C)
    latent = Categorical(mixed_log_probs(logits, unimix))
    mixed = (1 - unimix) * logits.softmax(-1) + unimix / C
    (expected,) = torch.autograd.grad((mixed.flatten(1) * weight).sum(), logits, retain_graph=True)
    for seed in range(3):
        torch.manual_seed(seed)
        (gradient,) = torch.autograd.grad((latent.sample() * weight).sum(), logits, retain_graph=True)
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-5)


def test_samples_are_one_hot_in_each_group():
    torch.manual_seed(0)
    model = CategoricalModel(6, G, C, 0.01, hidden_size=8, num_layers=1, activation="ELU")
    sample = model(torch.randn(7, 5, 6)).sample()
    assert sample.shape == (7, 5, G * C)
    groups = sample.detach().unflatten(-1, (G, C))
    torch.testing.assert_close(groups.sum(-1), torch.ones(7, 5, G))
    torch.testing.assert_close(groups.amax(-1), torch.ones(7, 5, G))
    assert len({tuple(row) for row in groups[:, :, 0].argmax(-1).tolist()}) > 1, "each state is drawn for itself"


def test_entropy_is_summed_over_groups():
    latent = Categorical(mixed_log_probs(torch.zeros(2, 32, 32), 0.01))
    assert latent.distribution.entropy().tolist() == pytest.approx([32 * math.log(32)] * 2)


@pytest.mark.parametrize("classes", [3, 15, 16, 40])
@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
def test_over_classes_matches_torch_softmax(function, classes):
    logits = torch.randn(2, 5, 3, classes, requires_grad=True)
    result, expected = over_classes(function, logits), function(logits, -1)
    torch.testing.assert_close(result, expected)
    weight = torch.randn_like(expected)
    gradients = (torch.autograd.grad((weight * each).sum(), logits)[0] for each in (result, expected))
    torch.testing.assert_close(*gradients)
