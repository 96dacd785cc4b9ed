"""Where nets look, on attention that is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.evaluation import attention, attention_distance, attention_information
from jaxdistill.evaluation.attention import attention_of
from jaxdistill.net import from_function

RNG = np.random.default_rng(0)
# One block of two heads: queries, keys and values are the inputs themselves.
NET = from_function(
    lambda key, x: ({"turn": jnp.ones(())}, {}),
    lambda params, state, x, train, rng: (x[:, 0], {"a/qkv": x * params["turn"]}, state),
)


def weights_of(qkv, heads, front):
    """[B, H, L, L] by a loop over everything."""
    size = qkv.shape[-1] // 3 // heads
    query, key, _ = np.split(qkv[:, front:].astype(np.float64), 3, -1)
    found = np.zeros((len(qkv), heads, query.shape[1], query.shape[1]))
    for b in range(len(qkv)):
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            scores = np.exp(query[b, :, part] @ key[b, :, part].T / np.sqrt(size))
            found[b, h] = scores / scores.sum(-1, keepdims=True)
    return found


def distance(weights, columns):
    length = len(weights)
    far = [
        [np.hypot(i // columns - j // columns, i % columns - j % columns) for j in range(length)]
        for i in range(length)
    ]
    return (weights * np.array(far)).sum() / length


def information(weights):
    joint = weights / len(weights)
    queries, keys = joint.sum(1), joint.sum(0)
    shared = (joint * np.log(joint / np.outer(queries, keys))).sum()
    entropies = [-(p * np.log(p)).sum() for p in (queries, keys)]
    return shared / np.sqrt(entropies[0] * entropies[1])


def test_distances_and_information_are_those_of_their_formulas():
    qkv = RNG.normal(size=(3, 2 + 6, 12)).astype(np.float32)
    expected = weights_of(qkv, 2, 2)
    weights = attention_of(jnp.asarray(qkv), 2, front=2)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    far, shared = attention_distance(weights, (2, 3)), attention_information(weights)
    for b in range(3):
        for h in range(2):
            np.testing.assert_allclose(far[b, h], distance(expected[b, h], 3), rtol=1e-5)
            np.testing.assert_allclose(shared[b, h], information(expected[b, h]), rtol=1e-4)


def test_the_limits_of_information():
    """Patches that all look at one, at the same ones, each at one of its own."""
    one = np.zeros((4, 4))
    one[:, 2] = 1
    given = np.stack([one, np.full((4, 4), 0.25), np.eye(4)])[None]
    assert attention_information(jnp.asarray(given)).tolist() == [[0.0, 0.0, 1.0]]


def test_the_evaluator_leaves_padding_out_and_compares_blocks():
    qkv = RNG.normal(size=(5, 5, 12)).astype(np.float32)
    padded = np.concatenate([qkv, np.full((1, 5, 12), np.nan, np.float32)])
    where = np.arange(6) < 5
    data = [{"image": padded[i : i + 3], "where": where[i : i + 3]} for i in (0, 3)]
    own, other = (({"turn": jnp.asarray(turn)}, {}) for turn in (1.0, 2.0))
    evaluator = attention(NET, NET, "other", blocks=("a/qkv",), heads=2)
    found = evaluator(own, {"other": other}, data)
    assert set(found) == set(evaluator.metrics)
    each = np.array([[distance(w, 2) for w in row] for row in weights_of(qkv, 2, 1)]).mean(0)
    theirs = [[distance(w, 2) for w in row] for row in weights_of(2 * qkv, 2, 1)]
    shared = [[information(w) for w in row] for row in weights_of(qkv, 2, 1)]
    values = [found["attention_distance_0_0"], found["attention_distance_0_1"]]
    np.testing.assert_allclose(values, each, rtol=1e-5)
    assert found["attention_distance"] == pytest.approx(each.mean(), rel=1e-5)
    assert found["attention_spread"] == pytest.approx(each.std(), rel=1e-4)
    assert found["attention_information"] == pytest.approx(np.mean(shared), rel=1e-4)
    assert found["attention_gap"] == pytest.approx(abs(each.mean() - np.mean(theirs)), rel=1e-3)
    for wrong, said in (({"heads": 5}, "multiple of 5 heads"), ({"front": 2}, "3 patches are no")):
        settings = {"blocks": ("a/qkv",), "heads": 2, **wrong}
        with pytest.raises(ValueError, match=said):
            attention(NET, **settings)(own, {}, data)
    assert "attention_gap" not in attention(NET, blocks=("a/qkv",), heads=2).metrics
