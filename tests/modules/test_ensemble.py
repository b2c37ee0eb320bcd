import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from dreamer.modules.ensemble import OneStepModel, _RowByRow, disagreement
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
    feature, action, target = torch.randn(*shape, F), torch.randn(*shape, A), torch.randn(*shape, E)
    prediction = model(feature, action)
    assert prediction.mean.shape == (K, *shape, E)
    for k in range(K):
        mean = member(model, k)(torch.cat([feature, action], -1))
        torch.testing.assert_close(prediction.mean[k], mean)
        log_prob = torch.distributions.Normal(mean, 1.0).log_prob(target).sum(-1)
        torch.testing.assert_close(prediction.log_prob(target)[k], log_prob)


def test_each_members_gradient_is_that_of_its_own_likelihood(model):
    feature, action, target = torch.randn(9, F), torch.randn(9, A), torch.randn(9, E)
    model(feature, action).log_prob(target).sum().backward()
    for k in range(K):
        alone = member(model, k)
        error = alone(torch.cat([feature, action], -1)) - target
        (-error.square().sum() / 2).backward()
        for layer, linear in zip(layers(model), alone[::2], strict=True):
            torch.testing.assert_close(layer.weight.grad[k], linear.weight.grad.T)
            torch.testing.assert_close(layer.bias.grad[k, 0], linear.bias.grad)


def test_sizes_and_initial_weights():
    """Every member is Glorot-uniform in its own sizes, with biases of zero."""
    torch.manual_seed(0)
    model = OneStepModel(60, 4, 50, num_ensemble=3, hidden_size=40, num_layers=2, activation="ELU")
    assert [tuple(layer.weight.shape) for layer in layers(model)] == [(3, 64, 40), (3, 40, 40), (3, 40, 50)]
    assert [type(layer).__name__ for layer in model.network[1::2]] == ["ELU", "ELU"]
    for layer in layers(model):
        bound = math.sqrt(6 / sum(layer.weight.shape[1:]))
        for weight in layer.weight:
            assert 0.98 * bound < weight.abs().max() <= bound
            assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert (layer.bias == 0).all()


def test_members_start_from_different_weights(model):
    for layer in layers(model):
        flat = layer.weight.flatten(1)
        assert all(one.corrcoef().abs()[0, 1] < 0.5 for one in (torch.stack(pair) for pair in pairwise(flat)))
    assert model(torch.randn(3, F), torch.randn(3, A)).mean.var(0).min() > 0


@pytest.mark.parametrize("shape", [(3, 7), (21,)])
def test_disagreement_as_printed(shape):
    """1 / (K - 1) Σ_k (μ_k - μ')², averaged over the embedding; "std": of the root of each component."""
    mean = torch.randn(K, *shape, E)
    variance = sum((mean[k] - sum(mean) / K) ** 2 for k in range(K)) / (K - 1)
    torch.testing.assert_close(disagreement(mean, "variance"), variance.mean(-1))
    torch.testing.assert_close(disagreement(mean, "std"), variance.sqrt().mean(-1))


def test_disagreement_in_figures():
    mean = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    assert disagreement(mean, "variance").item() == pytest.approx((4 + 0) / 2)
    assert disagreement(mean, "std").item() == pytest.approx((2 + 0) / 2)


@pytest.mark.parametrize("measure", ["variance", "std"])
def test_members_that_agree_exactly_have_a_gradient_of_zero(measure):
    mean = torch.ones(K, 3, E, requires_grad=True)
    disagreement(mean, measure).sum().backward()
    assert (mean.grad == 0).all()


@pytest.mark.parametrize("measure", ["variance", "std"])
def test_disagreement_a_few_rows_at_a_time(model, measure, monkeypatch):
    """In parts that do not come out even; only the inputs have gradients, or nothing has."""
    monkeypatch.setattr(_RowByRow, "ROWS", 4)
    inputs = [torch.randn(7, 3, size, requires_grad=True) for size in (F, A)]
    upstream, results = torch.randn(7, 3), []
    for value in (disagreement(model(*inputs).mean, measure), model.disagreement(*inputs, measure)):
        results.append([value.detach(), *torch.autograd.grad(value, inputs, upstream)])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    still = model.disagreement(*(part.detach() for part in inputs), measure)
    assert torch.equal(still, results[1][0]) and not still.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
