"""A planted slope comes back."""

import numpy as np
import pytest

from jaxdistill.language import fit_capacity_law

TEACHERS = np.geomspace(1, 64, 7)
STUDENTS = np.array([1.0, 2.0, 4.0, 8.0])


def surface(slope, noise=0.0, seed=0):
    """The loss falls with a better teacher and rises with the gap."""
    gap = np.log(TEACHERS[None] / (slope * STUDENTS[:, None]))
    # Steeper towards teachers that are too large, so that it is no parabola.
    loss = 3 / STUDENTS[:, None] ** 0.1 + 0.05 * gap**2 * (1 + 0.3 * np.tanh(gap))
    return loss + noise * np.random.default_rng(seed).normal(size=loss.shape)


@pytest.mark.parametrize("slope", [1.5, 2.5, 5.0])
@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_a_planted_slope_within_a_tenth(slope, noise):
    found = fit_capacity_law(STUDENTS, TEACHERS, surface(slope, noise))
    assert found.inside.all()
    assert abs(found.slope / slope - 1) < 0.1
    shuffled = np.random.default_rng(1).permutation(7)
    again = fit_capacity_law(STUDENTS, TEACHERS[shuffled], surface(slope, noise)[:, shuffled])
    assert again.slope == pytest.approx(found.slope)


def test_a_best_teacher_at_the_end_of_the_ladder_says_nothing():
    found = fit_capacity_law(STUDENTS, TEACHERS, -np.tile(np.log(TEACHERS), (4, 1)))
    assert not found.inside.any()
    assert np.isnan(found.slope)


@pytest.mark.parametrize(
    ("students", "teachers", "losses", "words"),
    [
        (STUDENTS, TEACHERS, np.zeros((7, 4)), r"losses must be \[students, teachers\]"),
        (STUDENTS, TEACHERS[:2], np.zeros((4, 2)), "three teachers"),
        (STUDENTS, np.ones(3), np.zeros((4, 3)), "unlike size"),
        (-STUDENTS, TEACHERS, np.zeros((4, 7)), "sizes must be positive"),
        (STUDENTS, TEACHERS, np.full((4, 7), np.nan), "losses finite"),
    ],
)
def test_refusals(students, teachers, losses, words):
    with pytest.raises(ValueError, match=words):
        fit_capacity_law(students, teachers, losses)
