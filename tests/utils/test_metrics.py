import numpy as np
import pytest
import torch

from dreamer.utils.metrics import ExponentialAverage, Means


def test_means_over_several_adds():
    means = Means()
    for loss in (1.0, 2.0, 6.0):
        means.add({"loss": torch.tensor(loss)})
    means.add({"loss": torch.tensor(3.0), "kl": torch.tensor(5.0)})
    result = means.result()
    assert result == {"loss": 3.0, "kl": 5.0}
    assert all(type(value) is float for value in result.values())


def test_means_start_again_after_a_result():
    means = Means()
    means.add({"loss": torch.tensor(100.0), "kl": torch.tensor(1.0)})
    means.result()
    assert means.result() == {}
    means.add({"loss": torch.tensor(4.0)})
    assert means.result() == {"loss": 4.0}


def test_means_lose_the_gradient():
    means, weight = Means(), torch.tensor(2.0, requires_grad=True)
    means.add({"loss": 3 * weight})
    assert not means.sums["loss"].requires_grad


@pytest.mark.parametrize("span, decay", [(20, 1 - 2 / 21), (3, 0.5), (1, 0.0)])
def test_exponential_average(span, decay):
    values = np.random.default_rng(0).normal(100, 30, 60)
    average = ExponentialAverage(span)
    for count, value in enumerate(values, start=1):
        weights = decay ** np.arange(count)[::-1]
        assert average.add(value) == pytest.approx(np.average(values[:count], weights=weights))


def test_exponential_average_by_hand():
    average = ExponentialAverage(3)  # weights 1/4, 1/2, 1
    assert [average.add(value) for value in (8.0, 2.0, 5.0)] == pytest.approx([8, 4, (2 + 1 + 5) / 1.75])
