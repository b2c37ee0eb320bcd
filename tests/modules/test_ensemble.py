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
    """The k-th member as a network of its own."""
    network = nn.Sequential()
    for layer in layers(model):
        linear = nn.Linear(*layer.weight.shape[1:])
        linear.weight.data, linear.bias.data = layer.weight.data[k].T.clone(), layer.bias.data[k, 0].clone()
        network.extend([linear, nn.ELU()])
    return network[:-1]


@pytest.mark.parametrize("shape", [(3, 7), (21,)], ids=["windows", "rows"])
def test_the_batched_ensemble_is_its_members_one_by_one(model, shape):
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


def test_what_an_action_has_beyond_its_bounds_counts_for_nothing(model):
    """As in the block GRU: a sample of a bounded Normal may lie there, and what is replayed does not."""
    feature, direction = torch.randn(3, F), torch.tensor([[1.0, -1.0]]).expand(3, A)
    disagreed = [model.disagreement(feature, size * direction, "variance") for size in (0.5, 1, 1.5, 3)]
    assert torch.equal(disagreed[1], disagreed[2]) and torch.equal(disagreed[1], disagreed[3])
    assert not torch.isclose(disagreed[0], disagreed[1]).any()


def test_members_start_from_weights_of_their_own(model):
    for layer in layers(model):
        bound = math.sqrt(6 / sum(layer.weight.shape[1:]))
        assert 0.8 * bound < layer.weight.abs().max() <= bound and (layer.bias == 0).all()
        assert (layer.weight.flatten(1).corrcoef() - torch.eye(K)).abs().max() < 0.5
    assert model(torch.randn(3, F), torch.randn(3, A)).mean.var(0).min() > 0


@pytest.mark.parametrize("shape", [(3, 7), (21,)])
def test_disagreement_as_printed(shape):
    """1 / (K - 1) Σ_k (μ_k - μ')², averaged over the embedding; "std": of the root of each component."""
    mean = torch.randn(K, *shape, E)
    variance = sum((mean[k] - sum(mean) / K) ** 2 for k in range(K)) / (K - 1)
    torch.testing.assert_close(disagreement(mean, "variance"), variance.mean(-1))
    torch.testing.assert_close(disagreement(mean, "std"), variance.sqrt().mean(-1))
    torch.testing.assert_close(disagreement(mean, "population_std"), ((K - 1) / K * variance).sqrt().mean(-1))


@pytest.mark.parametrize("measure", ["variance", "std", "population_std"])
def test_members_that_agree_exactly_have_a_gradient_of_zero(measure):
    mean = torch.ones(K, 3, E, requires_grad=True)
    disagreement(mean, measure).sum().backward()
    assert (mean.grad == 0).all()


@pytest.mark.parametrize("measure", ["variance", "std", "population_std"])
def test_disagreement_a_few_rows_at_a_time(model, measure, monkeypatch):
    """In parts that do not come out even; only the inputs have gradients, or nothing has."""
    monkeypatch.setattr(kernels, "ROWS", 4)
    inputs = [torch.randn(7, 3, size, requires_grad=True) for size in (F, A)]
    upstream, results = torch.randn(7, 3), []
    for value in (disagreement(model(*inputs).mean, measure), model.disagreement(*inputs, measure)):
        results.append([value.detach(), *torch.autograd.grad(value, inputs, upstream)])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    still = model.disagreement(*(part.detach() for part in inputs), measure)
    assert torch.equal(still, results[1][0]) and not still.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
