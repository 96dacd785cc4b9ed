"""Squared errors by hand, with padding, and of classes as one-hot targets."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from jaxdistill.evaluation import correlation, squared_error
from jaxdistill.net import from_function

NET = from_function(lambda key, x: ({}, {}), lambda params, state, x, train, rng: (x, {}, state))
PLAIN = ({}, {})


def test_padding_counts_nowhere():
    out = np.array([[1.0, 2.0], [3.0, 4.0], [np.nan, 9.0]], np.float32)
    batch = {"image": out, "label": np.zeros((3, 2), np.float32), "where": np.arange(3) < 2}
    assert squared_error(NET)(PLAIN, {}, [batch, batch])["squared_error"] == (5 + 25) / 2


def test_classes_are_one_hot():
    batch = {"image": np.array([[1.0, 0.0], [0.5, 0.0]], np.float32), "label": np.array([0, 1])}
    found = squared_error(NET, 2)(PLAIN, {}, [batch])
    assert found == {"squared_error": 0.625, "accuracy": 0.5}


def test_labels_that_are_no_classes():
    batch = {"image": np.ones((2, 3), np.float32), "label": np.ones(2, np.float32)}
    with pytest.raises(ValueError, match="labels of 3 classes must be integers, got float32"):
        squared_error(NET, 3)(PLAIN, {}, [batch])


def test_outputs_that_do_not_fit():
    batch = {"image": np.ones((2, 3), np.float32), "label": np.ones((2,), np.float32)}
    with pytest.raises(ValueError, match="do not fit targets"):
        squared_error(NET)(PLAIN, {}, [batch])
    nothing = {**batch, "where": np.zeros(2, bool), "label": np.ones((2, 3), np.float32)}
    with pytest.raises(ValueError, match="every record is padding"):
        squared_error(NET)(PLAIN, {}, [nothing])


def test_correlation_is_scipys_over_all_batches_and_no_padding():
    drawn = np.random.default_rng(0)
    out, label = drawn.normal(size=(2, 30)).astype(np.float32)
    batches = [
        {"image": out[:16, None], "label": label[:16, None], "where": np.ones(16, bool)},
        {"image": out[14:, None], "label": label[14:, None], "where": np.arange(16) > 1},
    ]
    found = correlation(NET)(PLAIN, {}, batches)
    assert found["pearson"] == pytest.approx(pearsonr(out, label).statistic, abs=1e-6)
    assert found["spearman"] == pytest.approx(spearmanr(out, label).statistic, abs=1e-6)
    with pytest.raises(ValueError, match=r"of one output a record, these are \(16, 2\)"):
        correlation(NET)(PLAIN, {}, [{**batches[0], "image": np.ones((16, 2), np.float32)}])
