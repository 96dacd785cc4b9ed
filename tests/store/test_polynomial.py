"""Packed integers and the curve in the rank, against the bytes of DistillKit."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.store import bits, codecs, polynomial

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
VOCABULARY = 40
SPEC = jax.ShapeDtypeStruct((3, VOCABULARY), jnp.float32)
CURVE = polynomial.Form(24, 4, (0, 1, 2), "float32", (), False)
DIFFERENCES = polynomial.Form(24, 4, (0, 1), "float32", ((20, 4),), True)
PAYLOADS = [("logprob_compress_poly", CURVE), ("logprob_compress_delta_bins", DIFFERENCES)]


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


def _golden(name):
    with np.load(GOLDENS / f"{name}_distillkit.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize("width", [3, 5, 11, 17])
def test_bits_are_packed_as_published(width):
    golden = _golden(f"bitpack_{width}")
    packed = bits.pack(jnp.asarray(golden["in__values"], jnp.int32), width)
    np.testing.assert_array_equal(packed, golden["out__bytes"], strict=True)
    count = golden["in__values"].shape[-1]
    np.testing.assert_array_equal(bits.unpack(packed, width, count), golden["in__values"])


@pytest.mark.parametrize("width", [1, 2, 8, 18, 31, 32])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_bits_come_back(width, count):
    values = np.random.default_rng(width).integers(0, 2**width, (2, count), np.uint64)
    values[:, :1] = 2**width - 1
    packed = bits.pack(jnp.asarray(values.astype(np.uint32)), width)
    assert packed.shape == (2, bits.packed_size(count, width))
    again = bits.unpack(packed, width, count)
    assert again.dtype == jnp.uint32
    np.testing.assert_array_equal(again, values)


def test_bits_refuse_what_they_cannot_pack():
    with pytest.raises(ValueError, match=r"integer arrays, got float32\[2\]"):
        jax.eval_shape(lambda x: bits.pack(x, 3), jnp.ones(2))
    for width in (0, 33, 2.0, True):
        with pytest.raises(ValueError, match=rf"bits must be in 1\.\.32, got {width}"):
            bits.pack(jnp.ones(2, jnp.int32), width)
    with pytest.raises(ValueError, match="3 integers of 5 bits are 2 bytes, got 3"):
        bits.unpack(jnp.ones(3, jnp.uint8), 5, 3)


def _payload(fields):
    """The fields as DistillKit has them in bytes: exact values, coefficients, then the bin."""
    order = [name for name in ("exact", "coefficients", "scales", "residuals") if name in fields]
    parts = [np.ascontiguousarray(fields[name]).view(np.uint8) for name in order]
    return np.concatenate(parts, axis=-1)


def _from_payload(form, payload):
    fields, start = {}, 0
    for name, field in polynomial.fields(form, payload.shape[:-1]).items():
        end = start + field.shape[-1] * field.dtype.itemsize
        fields[name] = np.ascontiguousarray(payload[..., start:end]).view(field.dtype)
        start = end
    assert start == payload.shape[-1]
    return fields


@pytest.mark.parametrize(("name", "form"), PAYLOADS)
def test_published_payloads_are_read(name, form):
    golden = _golden(name)
    fields = _from_payload(form, golden["out__bytes"])
    np.testing.assert_array_equal(_payload(fields), golden["out__bytes"])
    values = jax.jit(lambda fields: polynomial.expand(form, fields))(fields)
    np.testing.assert_allclose(values, golden["out__decompressed"], rtol=3e-7, atol=1e-6)


@pytest.mark.parametrize(("name", "form"), PAYLOADS)
def test_published_payloads_are_written(name, form):
    golden = _golden(name)
    theirs = _from_payload(form, golden["out__bytes"])
    ours = polynomial.compress(form, jnp.asarray(golden["in__logprobs"]))
    assert ours.keys() == theirs.keys()
    np.testing.assert_array_equal(ours["exact"], theirs["exact"])
    np.testing.assert_allclose(ours["coefficients"], theirs["coefficients"], rtol=0, atol=1e-5)
    if form.bins:
        np.testing.assert_allclose(ours["scales"], theirs["scales"], rtol=2e-6)
        np.testing.assert_array_equal(ours["residuals"], theirs["residuals"])
    # All else alike, the payload is the same to the byte.
    rounded = {"coefficients": theirs["coefficients"]}
    rounded |= {"scales": theirs["scales"]} if form.bins else {}
    np.testing.assert_array_equal(_payload({**ours, **rounded}), golden["out__bytes"])


def test_settings_of_the_payloads_are_ours():
    for name, form in PAYLOADS:
        args = json.loads(str(_golden(name)["meta"]))["args"]
        assert (args["exact_k"], args["delta_encoding"]) == (form.exact, form.delta)
        assert tuple(args["polynomial_terms"]) == form.terms
        assert [(b["num_elements"], b["element_bits"]) for b in args["residual_bins"]] == [
            *form.bins
        ]


def test_curve_made_of_its_terms_comes_back():
    rank = np.arange(24.0)
    curve = -3 - 0.1 * rank - np.sqrt(rank) + 2 * np.exp(-rank) + 0.001 * rank**2
    form = polynomial.Form(24, 0, (0, 1, 2, "sqrt", "exp"), "float32", (), False)
    fields = polynomial.compress(form, jnp.asarray(curve, jnp.float32))
    np.testing.assert_allclose(fields["coefficients"], [-3, -0.1, 0.001, -1, 2], atol=1e-3)
    np.testing.assert_allclose(polynomial.expand(form, fields), curve, atol=3e-5)


def test_fit_is_that_of_float64():
    terms = (0, 1, 2, 3, "sqrt", "exp")
    values = -np.sort(-_log_probs(_logits((20, 1000))))[:, :128]
    form = polynomial.Form(128, 16, terms, "float32", (), False)
    curve = polynomial.expand(form, polynomial.compress(form, jnp.asarray(values, jnp.float32)))
    rank = np.arange(112.0)
    basis = np.stack([*(rank**power for power in range(4)), np.sqrt(rank), np.exp(-rank)], -1)
    best = basis @ np.linalg.lstsq(basis, values[:, 16:].T, rcond=None)[0]
    np.testing.assert_allclose(curve[:, 16:], best.T, atol=2e-5)


def test_bins_bound_what_the_curve_misses():
    logits = _logits()
    best = -np.sort(-_log_probs(logits))[..., :30]
    errors = {}
    for width in (2, 5, 8):
        codec = _make(
            "polynomial",
            k=30,
            exact=6,
            terms=(0, 1),
            bins=[(12, width), (12, width)],
            missing="sparse",
        )
        seen, measures = _round_trip(codec, logits)
        errors[width] = np.abs(seen["log_probs"] - best)
        np.testing.assert_allclose(measures["error"], errors[width].max((1, 2)), atol=2e-6)
        scales = codec.encode(logits, _keys(4))[0]["scales"]
        # The largest step upwards is one short of the scale's reach, hence a whole step.
        bound = np.repeat(np.asarray(scales), 12, axis=-1)
        assert np.all(errors[width][..., 6:] <= bound + 1e-5)
    assert errors[8].max() < errors[5].max() < errors[2].max()


def test_exact_values_alone_need_no_curve():
    codec = _make("polynomial", k=7, exact=7, terms=(), missing="sparse")
    assert codec.fields.keys() == {"ids", "exact", "log_tail"}
    plain = _make("top_k", k=7, values="float32", packed=True, missing="sparse")
    for ours, theirs in zip(
        jax.tree.leaves(_round_trip(codec, _logits())[0]),
        jax.tree.leaves(_round_trip(plain, _logits())[0]),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_curve_through_a_class_without_mass_is_refused():
    logits = _logits().at[1, 2, 3:].set(-jnp.inf)
    _, measures = _round_trip(_make("polynomial", k=9, exact=2, terms=(0, 1)), logits)
    assert np.isfinite(measures["error"]).tolist() == [True, False, True, True]
