import math

import numpy as np
import pytest
import torch

from dreamer.errors import NotFiniteError
from dreamer.training.metrics import ADVICE, ExponentialAverage, Means, check_finite


def test_means_are_over_the_values_since_the_last_result():
    """Means are floats without a gradient, and a non-finite value makes them non-finite."""
    means, weight = Means(), torch.tensor(1.0, requires_grad=True)
    for loss in (1.0, 2.0, 6.0):
        means.add({"loss": loss * weight})
    means.add({"loss": torch.tensor(3.0), "kl": torch.tensor(5.0)})
    assert not means.sums["loss"].requires_grad
    result = means.result()
    assert result == {"loss": 3.0, "kl": 5.0} and all(type(value) is float for value in result.values())
    assert means.result() == {}
    for loss in (4.0, math.inf, -math.inf, 2.0):
        means.add({"loss": torch.tensor(loss)})
    with pytest.raises(NotFiniteError, match="loss"):
        check_finite(means.result(), 1)
    means.add({"loss": torch.tensor(4.0)})
    assert means.result() == {"loss": 4.0}


@pytest.mark.parametrize("span, decay", [(20, 1 - 2 / 21), (3, 0.5), (1, 0.0)])
def test_exponential_average_matches_its_formula_and_is_restored(span, decay):
    """After four values the average is restored from its state."""
    values = np.random.default_rng(0).normal(100, 30, 60)
    average = ExponentialAverage(span)
    for count, value in enumerate(values, start=1):
        if count == 5:
            state, average = average.state_dict(), ExponentialAverage(span)
            average.load_state_dict(state)
        weights = decay ** np.arange(count)[::-1]
        assert average.add(value) == pytest.approx(np.average(values[:count], weights=weights))


@pytest.mark.parametrize(
    "broken",
    [{"kl": math.nan}, {"kl": math.inf}, {"kl": -math.inf}, {"kl": math.nan, "grad_norm/model": math.inf}],
)
def test_check_finite_names_exactly_the_non_finite_metrics(broken):
    means = {"loss": 1.0, "kl": 0.0, "entropy": -1e300, "grad_norm/model": 5.0}
    check_finite(means, 7)
    with pytest.raises(NotFiniteError) as caught:
        check_finite(means | broken, 7)
    assert str(caught.value) == f"not finite in iteration 7: {', '.join(broken)}; {ADVICE}"
