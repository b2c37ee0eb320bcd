import math

import numpy as np
import pytest
import torch

from dreamer.metrics import ExponentialAverage, Means, NotFiniteError, check_finite


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


def test_an_exponential_average_goes_on_from_a_state():
    average, other = ExponentialAverage(5), ExponentialAverage(5)
    for value in (8.0, 2.0):
        average.add(value)
    other.load_state_dict(average.state_dict())
    assert [other.add(value) for value in (5.0, 7.0)] == [average.add(value) for value in (5.0, 7.0)]


@pytest.mark.parametrize(
    "broken",
    [{"kl": math.nan}, {"kl": math.inf}, {"kl": -math.inf}, {"kl": math.nan, "grad_norm/model": math.inf}],
)
def test_exactly_what_is_not_finite_is_named(broken):
    means = {"loss": 1.0, "kl": 0.0, "entropy": -1e300, "grad_norm/model": 5.0}
    check_finite(means, 7)
    with pytest.raises(NotFiniteError) as caught:
        check_finite(means | broken, 7)
    assert str(caught.value) == f"not finite in iteration 7: {', '.join(broken)}"


def test_means_do_not_hide_what_is_not_finite():
    means = Means()
    for loss in (1.0, math.inf, -math.inf, 2.0):
        means.add({"loss": torch.tensor(loss)})
    with pytest.raises(NotFiniteError, match="loss"):
        check_finite(means.result(), 1)
