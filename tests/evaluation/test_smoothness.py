"""The variance of features within classes and between them."""

import numpy as np
import pytest

from jaxdistill.evaluation import class_spread, spread
from jaxdistill.net import from_function

SEEN = from_function(lambda key, x: ({}, {}), lambda params, state, x, train, rng: (x, {}, state))
FEATURES = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
LABELS = np.arange(60) % 4


def test_both_halves_are_the_whole_variance():
    found = spread(FEATURES, LABELS)
    whole = np.square(FEATURES - FEATURES.mean(0)).sum(1).mean()
    assert found.within + found.between == pytest.approx(whole)
    # Of features without classes all but about (classes - 1) / n lies within.
    assert 0.8 < found.share < 1


def test_classes_that_are_points_have_no_spread():
    points = np.eye(4)[LABELS]
    assert spread(points, LABELS).share == 0
    assert spread(np.ones((60, 2)), LABELS).share == 1


def test_padding_counts_for_nothing_and_scale_for_nothing_in_the_share():
    evaluate = class_spread(SEEN)
    padded = {
        "image": np.concatenate([FEATURES, np.full((4, 5), 1e3, np.float32)]),
        "label": np.concatenate([LABELS, np.zeros(4, int)]),
        "where": np.arange(64) < 60,
    }
    found = evaluate(({}, {}), {}, [padded])
    wanted = spread(FEATURES, LABELS)
    assert found["spread"] == pytest.approx(wanted.within**0.5, rel=1e-6)
    assert found["within_share"] == pytest.approx(wanted.share, rel=1e-6)
    larger = evaluate(({}, {}), {}, [{**padded, "image": padded["image"] * 7}])
    assert larger["within_share"] == pytest.approx(found["within_share"], rel=1e-6)
    assert larger["spread"] == pytest.approx(7 * found["spread"], rel=1e-6)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"labels \[n\], got \(60, 5\) and \(3,\)"):
        spread(FEATURES, LABELS[:3])
