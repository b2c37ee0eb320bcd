import math

import pytest
import torch
from torch import nn

from dreamer.modules import kernels
from dreamer.modules.ensemble import OneStepModel, disagreement
from dreamer.modules.layers import EnsembleLinear

F, A, E, K = 6, 2, 5, 4


@pytest.fixture
def model():
    torch.manual_seed(0)
    return OneStepModel(F, A, E, num_ensemble=K, hidden_size=16, num_layers=3, activation="ELU")


def layers(model):
    return [layer for layer in model.network if isinstance(layer, EnsembleLinear)]


def member(model, k):
    """Return the k-th member as a separate network."""
    network = nn.Sequential()
    for layer in layers(model):
        linear = nn.Linear(*layer.weight.shape[1:])
        linear.weight.data, linear.bias.data = layer.weight.data[k].T.clone(), layer.bias.data[k, 0].clone()
        network.extend([linear, nn.ELU()])
    return network[:-1]


@pytest.mark.parametrize("shape", [(3, 7), (21,)], ids=["windows", "rows"])
def test_batched_ensemble_equals_its_separate_members(model, shape):
    with torch.no_grad():
        for layer in layers(model):
            layer.bias.normal_()
    feature, action, target = torch.randn(*shape, F), torch.rand(*shape, A) * 2 - 1, torch.randn(*shape, E)
    prediction = model(feature, action)
    assert prediction.mean.shape == (K, *shape, E)
    for k in range(K):
        mean = member(model, k)(torch.cat([feature, action], -1))
        torch.testing.assert_close(prediction.mean[k], mean)
        log_prob = torch.distributions.Normal(mean, 1.0).log_prob(target).sum(-1)
        torch.testing.assert_close(prediction.log_prob(target)[k], log_prob)


def test_actions_beyond_the_bounds_count_as_the_bounds(model):
    """Samples of the bounded Normal may exceed the bounds, replayed actions do not. The block GRU does the same."""
    feature, direction = torch.randn(3, F), torch.tensor([[1.0, -1.0]]).expand(3, A)
    disagreements = [model.disagreement(feature, size * direction, "variance") for size in (0.5, 1, 1.5, 3)]
    assert torch.equal(disagreements[1], disagreements[2]) and torch.equal(disagreements[1], disagreements[3])
    assert not torch.isclose(disagreements[0], disagreements[1]).any()


def test_members_start_from_different_weights(model):
    for layer in layers(model):
        bound = math.sqrt(6 / sum(layer.weight.shape[1:]))
        assert 0.8 * bound < layer.weight.abs().max() <= bound and (layer.bias == 0).all()
        assert (layer.weight.flatten(1).corrcoef() - torch.eye(K)).abs().max() < 0.5
    assert model(torch.randn(3, F), torch.randn(3, A)).mean.var(0).min() > 0


@pytest.mark.parametrize("shape", [(3, 7), (21,)])
def test_disagreement_matches_the_papers_formula(shape):
    """The variance is 1 / (K - 1) Σ_k (μ_k - μ')², averaged over the embedding; "std" averages its roots."""
    mean = torch.randn(K, *shape, E)
    variance = sum((mean[k] - sum(mean) / K) ** 2 for k in range(K)) / (K - 1)
    torch.testing.assert_close(disagreement(mean, "variance"), variance.mean(-1))
    torch.testing.assert_close(disagreement(mean, "std"), variance.sqrt().mean(-1))
    torch.testing.assert_close(disagreement(mean, "population_std"), ((K - 1) / K * variance).sqrt().mean(-1))


@pytest.mark.parametrize("measure", ["variance", "std", "population_std"])
def test_disagreement_of_equal_predictions_has_a_zero_gradient(measure):
    mean = torch.ones(K, 3, E, requires_grad=True)
    disagreement(mean, measure).sum().backward()
    assert (mean.grad == 0).all()


@pytest.mark.parametrize("measure", ["variance", "std", "population_std"])
def test_disagreement_in_chunks_equals_the_whole(model, measure, monkeypatch):
    """The number of rows is no multiple of the chunk size. Gradients reach the inputs but not the parameters."""
    monkeypatch.setattr(kernels, "ROWS", 4)
    inputs = [torch.randn(7, 3, size, requires_grad=True) for size in (F, A)]
    upstream, results = torch.randn(7, 3), []
    for value in (disagreement(model(*inputs).mean, measure), model.disagreement(*inputs, measure)):
        results.append([value.detach(), *torch.autograd.grad(value, inputs, upstream)])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    without_gradient = model.disagreement(*(part.detach() for part in inputs), measure)
    assert torch.equal(without_gradient, results[1][0]) and not without_gradient.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
