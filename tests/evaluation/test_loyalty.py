"""Loyalty against scipy and scikit-learn, on random answers and on degenerate ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score

from jaxdistill.evaluation import (
    label_loyalty,
    loyalty,
    probability_loyalty,
    regression_loyalty,
)
from jaxdistill.net import from_function

DRAW = np.random.default_rng(0)
STUDENT, TEACHER, OTHER = DRAW.normal(size=(3, 40, 5)).astype(np.float32)
SCALE = from_function(
    lambda key, x: ({"scale": jnp.ones(())}, {}),
    lambda params, state, x, train, rng: (params["scale"] * x + params.get("bias", 0), {}, state),
)


def softmax(logits):
    return np.asarray(jax.nn.softmax(logits.astype(np.float64)))


@pytest.mark.parametrize("base", [2.0, np.e])
def test_of_classes(base):
    distance = jensenshannon(softmax(STUDENT), softmax(TEACHER), base=base, axis=-1)
    assert probability_loyalty(STUDENT, TEACHER, base=base) == pytest.approx(
        1 - distance.mean(), abs=1e-6
    )
    expected = accuracy_score(TEACHER.argmax(-1), STUDENT.argmax(-1))
    assert label_loyalty(STUDENT, TEACHER) == pytest.approx(expected)


def test_of_the_extremes():
    assert probability_loyalty(TEACHER, TEACHER) == pytest.approx(1)
    apart = np.array([[0.0, -np.inf]], np.float32), np.array([[-np.inf, 0.0]], np.float32)
    assert probability_loyalty(*apart) == pytest.approx(0, abs=1e-6)
    assert probability_loyalty(*apart, base=np.e) == pytest.approx(1 - np.sqrt(np.log(2)), abs=1e-6)


def test_of_scores():
    ours, theirs = STUDENT[:, 0], TEACHER[:, :1][:, 0] + STUDENT[:, 0]
    assert regression_loyalty(ours, theirs) == pytest.approx(pearsonr(ours, theirs).statistic)
    assert regression_loyalty(ours, theirs, kind="spearman") == pytest.approx(
        spearmanr(ours, theirs).statistic
    )
    assert regression_loyalty(ours, theirs, kind="mae") == pytest.approx(
        np.abs(ours - theirs).mean(), rel=1e-6
    )
    assert np.isnan(regression_loyalty(np.ones(4), np.arange(4.0)))


def batches(rows, label):
    """Two batches, the second of which ends with padding that would spoil every mean."""
    spoilt = np.concatenate([rows[24:], np.full((8, *rows.shape[1:]), 99, np.float32)])
    labels = np.concatenate([label[24:], label[:8]])
    where = np.arange(24) < len(rows) - 24
    return [
        {"image": rows[:24], "label": label[:24], "where": np.ones(24, bool)},
        {"image": spoilt, "label": labels, "where": where},
    ]


def test_to_an_ensemble_and_to_each():
    def own(scale):
        return {"scale": jnp.full((), scale)}, {}

    evaluate = loyalty(SCALE, {"a": SCALE, "b": SCALE})
    rows, label = STUDENT, np.zeros(40, np.int32)
    found = evaluate(own(1.0), {"a": own(2.0), "b": own(-0.5)}, batches(rows, label))
    both = np.log((softmax(2 * rows) + softmax(-0.5 * rows)) / 2)
    assert found["probability_loyalty"] == pytest.approx(probability_loyalty(rows, both), abs=1e-6)
    assert found["label_loyalty"] == label_loyalty(rows, both)
    assert found["a_label_loyalty"] == 1
    assert found["b_label_loyalty"] < 0.3
    with pytest.raises(ValueError, match="teacher in the frozen variables 'b'"):
        evaluate(own(1.0), {"a": own(2.0)}, batches(rows, label))


def test_of_scores_to_an_ensemble():
    def own(scale, bias=0.0):
        return {"scale": jnp.full((), scale), "bias": jnp.full((), bias)}, {}

    rows, label = STUDENT[:, :1], TEACHER[:, :1]
    evaluate = loyalty(SCALE, {"a": SCALE, "b": SCALE}, scores=True)
    found = evaluate(own(1.0), {"a": own(2.0, 1.0), "b": own(-4.0)}, batches(rows, label))
    assert found["regression_loyalty"] == pytest.approx(-1)
    assert found["rank_loyalty"] == pytest.approx(-1)
    assert found["a_regression_loyalty"] == pytest.approx(1)
    assert found["absolute_gap"] == pytest.approx(np.abs(-rows + 0.5 - rows).mean(), rel=1e-5)
    assert found["pearson"] == pytest.approx(pearsonr(rows[:, 0], label[:, 0]).statistic)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: label_loyalty(STUDENT, TEACHER[:, :3]), r"\(40, 5\) and \(40, 3\)"),
        (lambda: probability_loyalty(STUDENT[:, :1], TEACHER[:, :1]), r"\[n, K\]"),
        (lambda: probability_loyalty(STUDENT, TEACHER, base=1.0), "above 1"),
        (lambda: regression_loyalty(STUDENT, TEACHER), r"\[n\] or \[n, 1\]"),
        (lambda: regression_loyalty(STUDENT[:, 0], TEACHER[:, 0], kind="kendall"), "'kendall'"),
        (lambda: loyalty(SCALE, {}), "there is none"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
