"""Codecs that keep some classes: against plain numpy, and by statistics of what is drawn."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.losses import sparse_kl
from jaxdistill.store import classes, codecs

VOCABULARY, LARGE = 40, 151936
SPEC = jax.ShapeDtypeStruct((3, VOCABULARY), jnp.float32)
PROBS = np.array([0.4, 0.25, 0.15, 0.1, 0.05, 0.03, 0.015, 0.005, 0.0])
SPARSE = {
    "top_k": {"k": 7, "values": "float32"},
    "top_p": {"p": 0.8, "k": 20, "values": "float32"},
    "sampled": {"draws": 40, "slots": 30},
    "polynomial": {"k": 20, "exact": 20, "terms": ()},
}


def _keys(number, seed=0):
    return jax.random.split(jax.random.key(seed), number)


def _logits(shape=(4, *SPEC.shape), seed=0):
    return jnp.asarray(3 * np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _log_probs(logits):
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _make(name, **settings):
    return codecs.CODECS[name](SPEC, **settings)


def _round_trip(codec, values, seed=0):
    fields, measures = jax.jit(codec.encode)(values, _keys(len(values), seed))
    return jax.jit(codec.decode)(fields), measures


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(
    ("values", "relative"), [("float32", 1e-6), ("float16", 2.0**-10), ("bfloat16", 2.0**-8)]
)
def test_top_k_keeps_the_best_and_the_mass_of_the_others(temperature, values, relative):
    logits, k = _logits(), 7
    codec = _make("top_k", k=k, values=values, temperature=temperature, missing="sparse")
    seen, measures = _round_trip(codec, logits)
    log_probs = _log_probs(logits / temperature)
    order = np.argsort(-log_probs, axis=-1)
    np.testing.assert_array_equal(seen["ids"], order[..., :k])
    best = np.take_along_axis(log_probs, order[..., :k], -1)
    np.testing.assert_allclose(seen["log_probs"], best, rtol=relative, atol=1e-6)
    tail = np.exp(np.take_along_axis(log_probs, order[..., k:], -1)).sum(-1)
    np.testing.assert_allclose(np.exp(seen["log_tail"]), tail, rtol=0, atol=1e-6)
    np.testing.assert_allclose(seen["log_tail"], np.log(tail), rtol=0, atol=1e-5)
    np.testing.assert_allclose(measures["tail_mass"], tail.max(1), rtol=0, atol=1e-6)


def test_small_tails_are_not_lost_in_rounding():
    logits = jnp.zeros((1, *SPEC.shape)).at[..., 5].set(60.0)
    seen, _ = _round_trip(_make("top_k", k=1, missing="sparse"), logits)
    np.testing.assert_allclose(seen["log_tail"], math.log(VOCABULARY - 1) - 60, rtol=1e-6)


def test_all_classes_leave_no_tail():
    seen, measures = _round_trip(_make("top_k", k=VOCABULARY, values="float32"), _logits())
    np.testing.assert_allclose(seen, _log_probs(_logits()), rtol=1e-6, atol=1e-6)
    assert not np.any(measures["tail_mass"])


def test_classes_without_mass_are_padding():
    logits = _logits().at[..., 4:].set(-jnp.inf)
    seen, measures = _round_trip(_make("top_k", k=6, packed=True, missing="sparse"), logits)
    assert np.all(seen["ids"][..., 4:] == VOCABULARY)
    assert np.all(np.isneginf(seen["log_probs"][..., 4:]))
    assert np.all(seen["ids"][..., :4] < 4)
    assert not np.any(measures["tail_mass"])


@pytest.mark.parametrize("p", [1e-9, 0.3, 0.9, 0.999, 1.0])
def test_top_p_is_the_smallest_set(p):
    logits, k = _logits(), 12
    seen, measures = _round_trip(
        _make("top_p", p=p, k=k, values="float32", missing="sparse"), logits
    )
    overflow, tails = np.zeros(4), np.zeros(4)
    for record, token in itertools.product(range(4), range(3)):
        log_probs = _log_probs(logits[record, token])
        order = np.argsort(-log_probs)
        mass = np.cumsum(np.exp(log_probs[order]))
        needed = int(np.searchsorted(mass, p)) + 1 if p < 1 else VOCABULARY
        kept = min(needed, k)
        expected = [*order[:kept], *[VOCABULARY] * (k - kept)]
        np.testing.assert_array_equal(seen["ids"][record, token], expected)
        known = seen["log_probs"][record, token]
        np.testing.assert_allclose(known[:kept], log_probs[order[:kept]], atol=1e-5)
        assert np.all(np.isneginf(known[kept:]))
        tail = 1 - mass[kept - 1]
        np.testing.assert_allclose(np.exp(seen["log_tail"][record, token]), tail, atol=1e-6)
        overflow[record] = max(overflow[record], needed > k)
        tails[record] = max(tails[record], tail)
    np.testing.assert_array_equal(measures["overflow"], overflow)
    np.testing.assert_allclose(measures["tail_mass"], tails, atol=1e-6)


def test_all_slots_reach_any_p():
    codec = _make("top_p", p=1.0, k=VOCABULARY, missing="sparse")
    seen, measures = _round_trip(codec, _logits())
    assert not np.any(measures["overflow"])
    assert np.all(seen["ids"] < VOCABULARY)


@pytest.mark.parametrize("name", ["top_k", "top_p", "sampled"])
@pytest.mark.parametrize("vocabulary", [1, 256, LARGE])
def test_packed_ids_are_the_same_ids(name, vocabulary):
    spec = jax.ShapeDtypeStruct((2, vocabulary), jnp.float32)
    few = min(vocabulary, 6)
    settings = {"top_k": {"k": few}, "top_p": {"p": 0.9, "k": few}, "sampled": {"slots": 9}}[name]
    logits = _logits((2, 2, vocabulary)).at[..., -1].add(20)
    plain, packed = (
        _round_trip(codecs.CODECS[name](spec, packed=p, missing="sparse", **settings), logits)[0]
        for p in (False, True)
    )
    for key in ("ids", "log_probs", "log_tail"):
        np.testing.assert_array_equal(plain[key], packed[key])
    assert np.all(plain["ids"][..., 0] == vocabulary - 1)


def test_ids_take_the_smallest_type():
    for vocabulary, k_type, p_type in (
        (256, "uint8", "uint16"),
        (257, "uint16", "uint16"),
        (65536, "uint16", "uint32"),
        (LARGE, "uint32", "uint32"),
    ):
        spec = jax.ShapeDtypeStruct((vocabulary,), jnp.float32)
        assert codecs.top_k(spec, k=3).fields["ids"].dtype == k_type
        assert codecs.top_p(spec, k=3, p=0.5).fields["ids"].dtype == p_type


def _shares(draws, slots, number):
    logits = jnp.log(jnp.asarray(np.stack([PROBS, PROBS[::-1]]), jnp.float32))
    spec = jax.ShapeDtypeStruct(logits.shape, jnp.float32)
    codec = codecs.sampled(spec, draws=draws, slots=slots, missing="sparse")
    batch = jnp.broadcast_to(logits, (number, *logits.shape))
    return _round_trip(codec, batch, 1)


def test_shares_are_unbiased_and_draws_independent():
    draws, number = 10, 4000
    seen, measures = _shares(draws, 9, number)
    assert not np.any(measures["overflow"])
    assert np.all(np.isneginf(seen["log_tail"]))
    shares = np.exp(codecs.densify(seen, len(PROBS), "sampled"), dtype=np.float64)
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-6)
    truth = np.stack([PROBS, PROBS[::-1]])
    variance = truth * (1 - truth) / draws
    assert np.all(np.abs(shares.mean(0) - truth) <= 5 * np.sqrt(variance / number))
    # Of independent draws only; the share of a rare class is skewed, hence the wide margin for it.
    np.testing.assert_allclose(shares.var(0), variance, rtol=0.2)
    assert not np.any(shares[:, 0, -1]), "a class without mass was drawn"
    tokens = np.corrcoef(shares[:, 0, 0], shares[:, 1, -1])[0, 1]
    assert abs(tokens) < 5 / math.sqrt(number), "tokens share their draws"


def test_gradient_of_the_sample_is_unbiased():
    number, draws = 4000, 10
    seen, _ = _shares(draws, 9, number)
    student = _logits((len(PROBS),), 3)

    def loss(student, ids, log_probs):
        return sparse_kl(student, ids, log_probs, missing="sampled")

    gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))(
        student, seen["ids"][:, 0], seen["log_probs"][:, 0]
    )
    exact = np.exp(_log_probs(student)) - PROBS
    error = np.asarray(gradients, np.float64).mean(0) - exact
    bound = 5 * np.sqrt(PROBS * (1 - PROBS) / draws / number)
    assert np.all(np.abs(error) <= bound + 1e-6)


def test_large_vocabularies_are_drawn_evenly():
    number = 200
    keys = _keys(number, 2)
    logits = np.zeros(LARGE, np.float32)
    logits[: LARGE // 4] = np.log(3)  # half of the mass in the first quarter
    probs = jax.nn.softmax(jnp.asarray(logits))
    drawn = np.asarray(jax.lax.map(lambda key: classes.draw(key, probs, 50), keys)).ravel()
    assert drawn.min() >= 0
    assert drawn.max() < LARGE
    edges = np.array([0, 1, 2, 3, 4, 7, 10, 13, 16]) * (LARGE // 16)
    found = np.histogram(drawn, edges)[0] / len(drawn)
    expected = np.full(8, 1 / 8)
    assert np.all(np.abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / len(drawn)))
    assert len(np.unique(drawn)) > 0.9 * len(drawn)


def test_surplus_classes_are_measured_and_left_to_the_tail():
    logits = jnp.zeros((5, *SPEC.shape)).at[..., 7].set(3.0)
    seen, measures = _round_trip(_make("sampled", draws=50, slots=6, missing="sparse"), logits)
    counts = 50 * np.exp(seen["log_probs"])
    lost = 1 - counts.sum(-1) / 50
    assert lost.min() > 0.2
    assert np.all(np.diff(counts) <= 0)
    assert np.all(seen["ids"][..., 0] == 7)
    np.testing.assert_allclose(measures["overflow"], lost.max(-1), atol=1e-6)
    np.testing.assert_allclose(np.exp(seen["log_tail"]), lost, atol=1e-6)


def test_sample_depends_on_the_key_alone():
    codec = _make("sampled", missing="sparse")
    logits = jnp.broadcast_to(_logits()[:1], (2, *SPEC.shape))
    once, again = (_round_trip(codec, logits, seed)[0]["ids"] for seed in (0, 0))
    np.testing.assert_array_equal(once, again)
    assert np.any(once[0] != once[1])
    assert np.any(once != _round_trip(codec, logits, 1)[0]["ids"])


@pytest.mark.parametrize("name", SPARSE)
def test_rules_for_missing_classes(name):
    logits = _logits()
    fields, _ = jax.jit(_make(name, **SPARSE[name]).encode)(logits, _keys(4))
    seen = _make(name, missing="sparse", **SPARSE[name]).decode(fields)
    for missing in ("uniform", "renormalise", "zero", "sampled"):
        dense = np.asarray(_make(name, missing=missing, **SPARSE[name]).decode(fields))
        assert (dense.shape, dense.dtype) == (logits.shape, np.float32)
        _check_rule(missing, jax.tree.map(np.asarray, seen), dense)


def _check_rule(missing, seen, dense):
    for place in itertools.product(range(4), range(3)):
        ids, log_probs = (np.asarray(seen[key][place], np.float64) for key in ("ids", "log_probs"))
        known = {int(i): math.exp(v) for i, v in zip(ids, log_probs, strict=True) if i < VOCABULARY}
        expected = np.zeros(VOCABULARY)
        if missing == "uniform":
            expected[:] = math.exp(seen["log_tail"][place]) / (VOCABULARY - len(known))
        for i, mass in known.items():
            expected[i] = mass / sum(known.values()) if missing == "renormalise" else mass
        np.testing.assert_allclose(np.exp(dense[place]), expected, rtol=1e-5, atol=1e-7)
        if missing in ("uniform", "renormalise"):
            np.testing.assert_allclose(np.exp(dense[place]).sum(), 1, atol=1e-5)


def test_padding_only():
    empty = {
        "ids": jnp.full((2,), 5),
        "log_probs": jnp.full((2,), -jnp.inf),
        "log_tail": jnp.zeros(()),
    }
    for rule in ("renormalise", "zero", "sampled"):
        assert np.all(np.isneginf(codecs.densify(empty, 5, rule)))
    np.testing.assert_allclose(np.exp(codecs.densify(empty, 5, "uniform")), 0.2, rtol=1e-6)


@pytest.mark.parametrize("name", SPARSE)
def test_losses_take_the_structure(name):
    logits, student = _logits(), _logits(seed=5)
    seen, _ = _round_trip(_make(name, missing="sparse", **SPARSE[name]), logits)
    log_student = _log_probs(student)
    shares = np.asarray(codecs.densify(seen, VOCABULARY, "sampled"), np.float64)
    with np.errstate(invalid="ignore"):
        terms = np.where(np.isneginf(shares), 0, np.exp(shares) * (shares - log_student))
    loss = sparse_kl(student, seen["ids"], seen["log_probs"], missing="sampled")
    np.testing.assert_allclose(loss, terms.sum(-1), rtol=2e-5, atol=1e-5)
    for rule in ("tail", "renormalise", "zero"):
        assert np.isfinite(sparse_kl(student, seen["ids"], seen["log_probs"], missing=rule)).all()


def test_unknown_rule_of_densify():
    seen, _ = _round_trip(_make("top_k", k=2, missing="sparse"), _logits())
    with pytest.raises(ValueError, match="unknown missing 'tail'"):
        codecs.densify(seen, VOCABULARY, "tail")
