"""Scores of sources, by hand and on hard inputs."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxdistill import from_function, registry, search
from jaxdistill.data import sources
from jaxdistill.evaluation import parc, source_weights

LABELS = np.repeat(np.arange(4), 6)
DRAWN = np.random.default_rng(0)


def test_parc_is_the_rank_correlation_of_distances():
    features = DRAWN.normal(size=(24, 5)) + 2 * np.eye(5)[LABELS]
    standard = (features - features.mean(0)) / features.std(0)
    pairs = np.triu_indices(24, 1)
    ours = 1 - np.corrcoef(standard)[pairs]
    theirs = 1 - np.corrcoef(np.eye(4)[LABELS])[pairs]
    expected = 100 * stats.spearmanr(ours, np.round(theirs, 9)).statistic
    assert parc(features, LABELS) == pytest.approx(expected, abs=1e-9)


def test_parc_orders_sources():
    near = np.eye(4)[LABELS] + 0.1 * DRAWN.normal(size=(24, 4))
    far = np.eye(4)[LABELS] + 1.0 * DRAWN.normal(size=(24, 4))
    noise = DRAWN.normal(size=(24, 4))
    scores = [parc(x, LABELS) for x in (near, far, noise)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 60
    assert abs(scores[2]) < 20


def test_parc_does_not_mind_order_scale_and_dead_columns():
    features = DRAWN.normal(size=(24, 5)) + np.eye(5)[LABELS]
    order = DRAWN.permutation(24)
    dead = np.concatenate([features * [1, 2, 3, 4, 5] + 7, np.ones((24, 2))], axis=1)
    assert parc(dead[order], LABELS[order]) == pytest.approx(parc(features, LABELS), abs=1e-9)


def test_what_tells_nothing_scores_nothing():
    assert parc(np.ones((24, 3)), LABELS) == 0
    assert parc(DRAWN.normal(size=(24, 3)), np.zeros(24, int)) == 0


@pytest.mark.parametrize(
    ("features", "labels", "words"),
    [
        (np.ones((4, 2, 2)), np.arange(4), "must be"),
        (np.ones((4, 2)), np.arange(5), r"\(4, 2\) and \(5,\)"),
        (np.ones((2, 2)), np.arange(2), "at least 3 records"),
        (np.full((4, 2), np.nan), np.arange(4), "not finite"),
    ],
)
def test_bad_features_are_refused(features, labels, words):
    with pytest.raises(ValueError, match=words):
        parc(features, labels)


def test_weights_run_from_equal_to_the_best_alone():
    scores = {"a": 30.0, "b": 20.0, "c": -40.0}
    assert source_weights(scores, 0) == {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    some = source_weights(scores, 12)
    assert some["a"] == pytest.approx(1 / (1 + (2 / 3) ** 12))
    assert some["c"] == 0
    assert sum(some.values()) == pytest.approx(1)
    assert source_weights(scores, "nearest") == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert source_weights({"a": -1.0, "b": -2.0}) == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    ("scores", "power", "words"),
    [
        ({}, 1.0, "no source"),
        ({"a": 1.0}, -1.0, "power must be at least 0 or 'nearest', got -1"),
        ({"a": np.nan}, 1.0, "not finite"),
    ],
)
def test_bad_weights_are_refused(scores, power, words):
    with pytest.raises(ValueError, match=words):
        source_weights(scores, power)


@pytest.mark.parametrize("share", [None, (0.5, 1.0)])
def test_sources_are_scored_on_the_records_whose_labels_the_student_knows(share):
    def apply(params, state, inputs, *, train, rng):
        del params, train, rng
        return inputs.reshape(len(inputs), -1), {}, state

    net = from_function(lambda key, inputs: ({}, {}), apply)
    digits = sources.digits()
    work = search.transfer_weights(
        {"own": net}, 3, sources={"own": "own"}, labelled=20, share=share
    )
    found = work.run({"own": {"params": {}, "state": {}}}, {"train": digits}, jax.random.key(0))
    known = registry.records(digits, {"share": share, "labels": 20}, seed=3)
    seen = known.gather(np.flatnonzero(known.labels() >= 0))
    pixels = seen["image"].reshape(20, -1) / 255
    assert found["own_score"] == pytest.approx(parc(pixels, seen["label"]), abs=0.1)
