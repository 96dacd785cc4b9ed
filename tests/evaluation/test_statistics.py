"""Contrasts and intervals against tables and scipy."""

import math
from functools import partial

import numpy as np
import pytest
from scipy import stats

from jaxdistill.evaluation import contrast, paired_interval, statistics, verdict


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
    assert verdict(-math.inf, math.inf) == "not shown"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_number(value):
    with pytest.raises(ValueError, match="finite"):
        paired_interval([0.5, value])
    with pytest.raises(ValueError, match="finite"):
        statistics.grid_interval({"a": [1.0, value], "b": [1.0, 1.0]}, "a", ["b"])
    with pytest.raises(ValueError, match="finite"):
        statistics.resolution_of([value], 10)
    for low, high, margin in ((math.nan, 1.0, 0.0), (0.0, 1.0, value), (1.0, 0.0, 0.0)):
        with pytest.raises(ValueError, match="no interval"):
            verdict(low, high, margin)


@pytest.mark.parametrize("seeds", [2, 5, 7])
def test_equal_differences_have_a_width(seeds):
    t = stats.t.ppf(0.975, seeds - 1) / math.sqrt(seeds)
    mean, low, high = paired_interval([0.25] * seeds, resolution=0.01)
    assert (mean, low, high) == pytest.approx((0.25, 0.25 - 0.01 * t, 0.25 + 0.01 * t))
    # Without a resolution each may be one step: six of one sign are what a test of signs asks.
    _, low, high = paired_interval(np.float32([0.6] * seeds) - np.float32([0.35] * seeds))
    assert (low, high) == pytest.approx((0.25 - 0.25 * t, 0.25 + 0.25 * t))
    assert (low > 0) == (seeds == 7)
    assert paired_interval([0.0] * seeds) == (0.0, -math.inf, math.inf)
    with pytest.raises(ValueError, match="resolution must be above 0"):
        paired_interval([1.0, 2.0], resolution=0.0)


def test_the_step_of_a_metric():
    assert statistics.resolution_of([0.5, 0.25, 1.0], 360) == 1 / 360
    assert statistics.resolution_of(np.float32([33, 120]) / np.float32(360), 360) == 1 / 360
    assert statistics.resolution_of([12.0, 1.0], 360) == 1
    assert statistics.resolution_of([12.0, 0.123], 360) == pytest.approx(12 * 2**-23)
    assert statistics.resolution_of([0.123], None) is None


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
        ((0.1, 0.2), 0.15, "smaller than asked"),
        ((0.1, 0.2), 0.3, "smaller than asked"),
        ((0.009, 0.013), 0.03, "smaller than asked"),
        ((0.0, 0.2), 0.3, "not shown"),
        ((-0.1, 0.2), 0.3, "not shown"),
        ((-0.2, -0.1), 0.3, "contradicted"),
        ((-0.2, -0.1), -0.3, "holds"),
        ((-0.2, -0.1), -0.15, "not shown"),
        ((-0.2, 0.1), -0.15, "not shown"),
        ((-0.2, -0.1), -0.05, "contradicted"),
    ],
)
def test_verdicts(interval, margin, expected):
    assert verdict(*interval, margin=margin) == expected


def test_the_overall_verdict_is_the_worst():
    order = ["contradicted", "not shown", "smaller than asked", "holds"]
    for place, worst in enumerate(order):
        assert statistics.overall(order[place:][::-1]) == worst


def test_holm_is_the_step_down_rule():
    """Which of several are answered, against the step-down rule on p-values."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        d = rng.normal(1.0, 1.0, (4, 5))
        found = statistics.holm(
            {str(i): partial(paired_interval, row) for i, row in enumerate(d)},
            {str(i): 0.0 for i in range(4)},
        )
        values = stats.ttest_1samp(d, 0, axis=1).pvalue
        rejected, going = np.zeros(4, bool), True
        for place, i in enumerate(np.argsort(values)):
            going = going and values[i] <= 0.05 / (4 - place)
            rejected[i] = going
        assert [a.verdict != "not shown" for a in found.values()] == rejected.tolist()
        assert all(a.verdict == verdict(a.low, a.high) for a in found.values())


def claims_of(draws, contrasts, effect, margin=0.0):
    """Verdicts on simulated claims of five seeds, effects in standard deviations."""
    rng = np.random.default_rng(0)
    differences = rng.normal(effect, 1.0, (draws, contrasts, 5))
    margins = {str(i): margin for i in range(contrasts)}
    return [
        [
            answer.verdict
            for answer in statistics.holm(
                {str(i): partial(paired_interval, row) for i, row in enumerate(d)}, margins
            ).values()
        ]
        for d in differences
    ]


def share(found, word):
    return np.mean([word in verdicts for verdicts in found])


@pytest.mark.parametrize("contrasts", [1, 5])
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_without_an_effect_claims_seldom_hold_or_are_contradicted(contrasts, margin):
    found = claims_of(2000, contrasts, 0.0, margin)
    for word in ("holds", "contradicted", "smaller than asked"):
        assert share(found, word) <= 0.05
    # With a margin an effect of just that size does not hold either.
    assert share(claims_of(2000, contrasts, margin, margin), "holds") <= 0.05


def test_an_effect_of_two_deviations_is_seen_with_five_seeds():
    held = share(claims_of(2000, 1, 2.0), "holds")
    assert held >= 0.85
    assert held == pytest.approx(statistics.power(5, 2.0), abs=0.02)
    # Any of five; each alone in 77 %.
    assert share(claims_of(1000, 5, 2.0), "holds") >= 0.85


def test_a_chosen_arm_as_good_as_the_best_of_eleven_is_seldom_contradicted():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        losses = {str(i): rng.normal(size=5) for i in range(12)}
        mean, low, high = statistics.grid_interval(losses, "0", list(losses))
        assert low <= mean <= high
        found.append((low, high))
    low, high = np.array(found).T
    assert np.mean(high < 0) <= 0.05
    assert np.mean(low > 0) <= 0.05


def test_a_grid_without_another_arm():
    with pytest.raises(ValueError, match="besides 'a'"):
        statistics.grid_interval({"a": [1.0, 2.0]}, "a", ["a"])
    with pytest.raises(ValueError, match="did you mean 'low'"):
        statistics.grid_interval({"a": [1.0, 2.0], "low": [1.0, 2.0]}, "a", ["lo"])


def test_power_of_few_seeds():
    assert statistics.power(1, 5.0) == 0
    assert statistics.power(3, 1.0) == pytest.approx(0.18, abs=0.005)
    assert statistics.power(5, 0.0) == pytest.approx(0.025)
