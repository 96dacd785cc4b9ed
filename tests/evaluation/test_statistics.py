"""Contrasts and intervals against tables and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxdistill.evaluation import contrast, paired_interval, verdict


def test_interval_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 7))
    for confidence in (0.9, 0.95):
        mean, low, high = paired_interval(one - other, confidence)
        expected = stats.ttest_rel(one, other).confidence_interval(confidence)
        assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-9)
        assert mean == pytest.approx((one - other).mean())


def test_interval_from_the_printed_table():
    # t is 2.776 for four degrees of freedom.
    mean, low, high = paired_interval([1, 2, 3, 4, 5])
    assert mean == 3
    assert (high - low) / 2 == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=1e-3)


def test_what_shows_nothing():
    assert paired_interval([0.5]) == (0.5, -math.inf, math.inf)
    mean, low, high = paired_interval([0.5, math.nan])
    assert math.isnan(mean)
    assert verdict(low, high) == "not shown"
    assert paired_interval([0.25, 0.25]) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(("differences", "confidence"), [([], 0.95), ([[1.0]], 0.95), ([1.0], 1.0)])
def test_intervals_of_nothing_are_refused(differences, confidence):
    with pytest.raises(ValueError, match=r"differences|confidence"):
        paired_interval(differences, confidence)


def test_interaction_of_four_arms():
    values = {"a": [4.0, 5.0], "b": [3.0, 3.0], "c": [2.0, 2.0], "d": [2.0, 1.0]}
    found = contrast(values, {"a": 1, "b": -1, "c": -1, "d": 1})
    np.testing.assert_array_equal(found, [1.0, 1.0])


def test_contrasts_of_arms_that_do_not_fit():
    with pytest.raises(ValueError, match="did you mean 'plain'"):
        contrast({"plain": [1.0]}, {"plan": 1})
    with pytest.raises(ValueError, match="same seeds"):
        contrast({"a": [1.0], "b": [1.0, 2.0]}, {"a": 1, "b": -1})
    with pytest.raises(ValueError, match="at least one"):
        contrast({"a": [1.0]}, {})


@pytest.mark.parametrize(
    ("interval", "margin", "expected"),
    [
        ((0.1, 0.2), 0.0, "holds"),
        ((0.0, 0.2), 0.0, "not shown"),
        ((-0.2, -0.1), 0.0, "contradicted"),
        ((0.1, 0.2), 0.15, "not shown"),
        ((0.1, 0.2), 0.3, "contradicted"),
        ((-0.2, -0.1), -0.3, "holds"),
    ],
)
def test_verdicts(interval, margin, expected):
    assert verdict(*interval, margin) == expected
