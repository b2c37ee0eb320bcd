import numpy as np
import pytest

from dreamer.tools.statistics import (
    interquartile_mean,
    interval,
    performance_profile,
    probability_of_improvement,
)


@pytest.mark.parametrize("values, mean", [([0, 1, 2, 100], 1.5), ([1, 2, 9], 4), ([5], 5), ([0, 1, 2, 3, 99], 2)])
def test_interquartile_mean_omits_the_lowest_and_highest_quarter(values, mean):
    assert interquartile_mean(np.array(values, float)) == mean


def test_confidence_interval_resamples_within_each_task():
    """The tasks have scores 0 and 100; resampled together, their mean would vary."""
    low, high = interval([np.array([0.0, 1.0, 2.0]), np.array([100.0, 101.0, 102.0])])
    assert 25 < low < 51 < high < 77 and high - low < 35
    assert interval([np.array([3.0, 3.0])]) == (3.0, 3.0)
    assert np.isnan(interval([np.array([1.0, 2.0]), np.array([1.0])])).all(), "one run says nothing of the spread"


def test_confidence_interval_has_its_nominal_coverage():
    """Of 200 intervals of 95 %, about 188 contain the mean 0; 170 or 200 would be wrong."""
    samples = np.random.default_rng(1).normal(size=(200, 40))
    low, high = interval([samples], lambda values, axis: values.mean(axis))
    assert 176 <= ((low < 0) & (high > 0)).sum() <= 198


def test_probability_of_improvement_is_averaged_over_tasks():
    one, other = np.array([1.0, 3.0]), np.array([1.0, 2.0, 4.0])  # pairs: a tie, 1 < 2, 1 < 4, 3 > 1, 3 > 2, 3 < 4
    assert probability_of_improvement([one], [other])[0] == pytest.approx(2.5 / 6)
    probability, low, high = probability_of_improvement([one, one + 9], [other, other])
    assert probability == pytest.approx((2.5 / 6 + 1) / 2) and low < probability < high <= 1


def test_profile_is_the_fraction_of_runs_above_each_score():
    runs = [np.array([1.0, 2.0]), np.array([3.0, 4.0])]
    assert performance_profile(runs, np.array([0.0, 1.0, 3.5, 4.0])).tolist() == [1, 0.75, 0.25, 0]
