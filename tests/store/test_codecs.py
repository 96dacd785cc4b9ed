"""What holds of every codec, codecs of whole arrays, bytes and settings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdistill.store import codecs

VOCABULARY, LARGE = 40, 151936
SPEC = jax.ShapeDtypeStruct((3, VOCABULARY), jnp.float32)

# Each codec at its usual and at its most involved, for what holds of all.
SETTINGS = [
    ("dense", {}),
    ("dense", {"dtype": "bfloat16"}),
    ("quantised", {}),
    ("top_k", {"k": 5}),
    ("top_k", {"k": 5, "packed": True, "values": "bfloat16", "missing": "sparse"}),
    ("top_p", {"p": 0.7, "k": 9, "temperature": 2.0}),
    ("top_p", {"p": 0.7, "k": 9, "packed": True, "missing": "sparse"}),
    ("sampled", {"draws": 30, "slots": 12}),
    ("sampled", {"draws": 30, "slots": 4, "packed": True, "missing": "sparse"}),
    ("polynomial", {"k": 30, "exact": 6, "dtype": "float16"}),
    (
        "polynomial",
        {"k": 30, "exact": 6, "bins": [[10, 5], [7, 3]], "delta": True, "missing": "sparse"},
    ),
]


def _keys(number, seed=0):
    return jax.random.split(jax.random.key(seed), number)


def _logits(shape=(4, *SPEC.shape), seed=0):
    return jnp.asarray(3 * np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _make(name, **settings):
    return codecs.CODECS[name](SPEC, **settings)


def _round_trip(codec, values, seed=0):
    fields, measures = jax.jit(codec.encode)(values, _keys(len(values), seed))
    return jax.jit(codec.decode)(fields), measures


def _close(ours, theirs, tolerance=1e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=tolerance, atol=tolerance
        ),
        ours,
        theirs,
    )


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_fields_are_what_is_said(name, settings):
    codec = _make(name, **settings)
    fields, measures = jax.eval_shape(codec.encode, _logits(), _keys(4))
    assert {key: (x.shape[1:], x.dtype) for key, x in fields.items()} == {
        key: (x.shape, x.dtype) for key, x in codec.fields.items()
    }
    assert all((x.shape, x.dtype) == ((4,), jnp.float32) for x in measures.values())
    written = jax.jit(codec.encode)(_logits(), _keys(4))[0].values()
    assert codecs.nbytes(codec) * 4 == sum(x.nbytes for x in written)
    seen = jax.eval_shape(codec.decode, fields)
    for x in jax.tree.leaves(seen):
        assert x.shape[:2] == (4, 3)
        assert x.dtype in (jnp.float32, jnp.int32)
    if settings.get("missing") != "sparse":
        assert seen.shape == (4, *SPEC.shape)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_jit_changes_nothing(name, settings):
    codec = _make(name, **settings)
    eager = codec.encode(_logits(), _keys(4))
    _close(jax.jit(codec.encode)(_logits(), _keys(4)), eager)
    _close(jax.jit(codec.decode)(eager[0]), codec.decode(eager[0]))


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_record_is_written_alike_alone(name, settings):
    codec = _make(name, **settings)
    encode, logits, keys = jax.jit(codec.encode), _logits(), _keys(4)
    together = encode(logits, keys)
    # Differences of neighbours add up what sums are rounded to.
    tolerance = 1e-4 if settings.get("delta") else 1e-5
    for place in range(4):
        one = slice(place, place + 1)
        expected = jax.tree.map(lambda x, one=one: x[one], together)
        _close(encode(logits[one], keys[one]), expected, tolerance)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_record_without_tokens(name, settings):
    codec = codecs.CODECS[name](jax.ShapeDtypeStruct((VOCABULARY,), jnp.float32), **settings)
    seen, measures = _round_trip(codec, _logits((2, VOCABULARY)))
    assert all(np.isfinite(x).all() for x in measures.values())
    assert all(len(x) == 2 for x in jax.tree.leaves(seen))


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_what_is_no_distribution_is_measured_as_infinite(name, settings):
    logits = _logits().at[1, 2, 3].set(jnp.nan).at[3, 0, 5].set(jnp.inf).at[2, 1].set(-jnp.inf)
    _, measures = _round_trip(_make(name, **settings), logits)
    finite = np.all([np.isfinite(x) for x in measures.values()], axis=0).tolist()
    # Infinities that are no part of a distribution are written as they are.
    assert finite == [True, False, *(2 * [name == "dense"])]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_batch_of_other_records_is_refused(name, settings):
    codec = _make(name, **settings)
    for batch in (_logits((4, 2, VOCABULARY)), _logits().astype(jnp.bfloat16), jnp.float32(0)):
        with pytest.raises(ValueError, match=r"records are float32\[3, 40\], but the batch is"):
            codec.encode(batch, _keys(4))


@pytest.mark.parametrize(
    ("dtype", "relative"), [("float32", 0.0), ("float16", 2.0**-11), ("bfloat16", 2.0**-8)]
)
def test_dense_keeps_the_digits_of_its_type(dtype, relative):
    values = _logits()
    seen, measures = _round_trip(_make("dense", dtype=dtype), values)
    error = np.abs(np.asarray(seen) - values)
    assert seen.dtype == jnp.float32
    assert np.all(error <= relative * np.abs(values))
    np.testing.assert_array_equal(measures["error"], error.max((1, 2)))


def test_dense_shows_what_its_type_has_no_room_for():
    values = _logits().at[2, 0, 0].set(1e6).at[3, 0, 0].set(-jnp.inf)
    _, measures = _round_trip(_make("dense", dtype="float16"), values)
    assert np.isinf(measures["error"]).tolist() == [False, False, True, False]
    assert not np.any(_round_trip(_make("dense"), values)[1]["error"])
    _, measures = _round_trip(_make("dense", dtype="bfloat16"), values.at[0, 0, 0].set(3.4e38))
    assert np.isinf(measures["error"]).tolist() == [True, False, False, False]


def test_dense_keeps_float64_where_jax_does():
    with pytest.raises(ValueError, match="dtype 'float64' needs jax_enable_x64"):
        _make("dense", dtype="float64")
    with jax.enable_x64(True):
        values = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5)))
        spec = jax.ShapeDtypeStruct((5,), jnp.float64)
        seen, measures = _round_trip(codecs.dense(spec, dtype="float64"), values)
        assert seen.dtype == jnp.float64
        np.testing.assert_array_equal(seen, values)
        seen, measures = _round_trip(codecs.dense(spec), values)
        assert seen.dtype == jnp.float32
        assert 0 < np.max(measures["error"]) < 1e-7


@pytest.mark.parametrize("own", ["uint8", "uint16", "uint32", "int32"])
def test_integers_keep_their_own_type(own):
    codec = codecs.dense(jax.ShapeDtypeStruct((3,), jnp.dtype(own)))
    assert codec.fields["values"].dtype == own
    values = jnp.array([[0, 7, 255]], own)
    seen, measures = _round_trip(codec, values)
    assert (seen.dtype, float(measures["overflow"][0])) == (jnp.int32, 0.0)
    np.testing.assert_array_equal(seen, values)


def test_integers_that_do_not_fit_are_measured():
    tokens = jnp.array([[1, 65535], [65536, 3], [-1, -2]], jnp.int32)
    codec = codecs.dense(jax.ShapeDtypeStruct((2,), jnp.int32), dtype="uint16")
    seen, measures = _round_trip(codec, tokens)
    assert measures["overflow"].tolist() == [0.0, 0.5, 1.0]
    np.testing.assert_array_equal(seen[0], tokens[0])
    codec = codecs.dense(jax.ShapeDtypeStruct((2,), jnp.uint32))
    _, measures = _round_trip(codec, jnp.array([[2**31, 1]], jnp.uint32))
    assert measures["overflow"].tolist() == [0.5]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e37]))
def test_quantised_is_within_half_a_step(seed, size):
    values = (size * np.random.default_rng(seed).normal(size=(2, 3, 16))).astype(np.float32)
    spec = jax.ShapeDtypeStruct((3, 16), jnp.float32)
    seen, measures = _round_trip(codecs.quantised(spec), jnp.asarray(values))
    half = (values.max(-1, keepdims=True) - values.min(-1, keepdims=True)) / 510
    assert np.all(np.abs(seen - values) <= half + 4e-7 * np.abs(values).max())
    np.testing.assert_allclose(measures["error_bound"], half.max((1, 2)), rtol=1e-6)


def test_quantised_constant_and_broken_rows():
    spec = jax.ShapeDtypeStruct((2, 4), jnp.float32)
    values = np.zeros((6, 2, 4), np.float32)
    values[0] = 0.1
    values[1, 0, 0] = np.nan
    values[2, 1, 3] = np.inf
    values[3, 1] = -np.inf
    values[4, 0] = [3e38, -3e38, 0, 0]  # the range has no room in float32
    values[5, 0] = [0, 1e-44, 3e-43, 0]
    seen, measures = _round_trip(codecs.quantised(spec, bound=0.1), jnp.asarray(values))
    assert np.isinf(measures["error_bound"]).tolist() == [False, True, True, True, True, False]
    assert measures["error_bound"][0] == 0
    np.testing.assert_array_equal(seen[0], values[0])
    np.testing.assert_allclose(seen[5], values[5], atol=1e-42)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("dense", {"dtype": "bfloat16"}, 2 * LARGE),
        ("quantised", {}, LARGE + 8),
        ("top_k", {"k": 64, "values": "float32"}, 8 * 64 + 4),
        ("top_k", {"k": 64, "values": "bfloat16"}, 6 * 64 + 4),
        ("top_k", {"k": 64, "values": "bfloat16", "packed": True}, 34 * 64 // 8 + 4),
        ("top_p", {"p": 0.95, "k": 64, "packed": True}, 34 * 64 // 8 + 4),
        ("sampled", {}, 5 * 24),
        ("sampled", {"slots": 12, "packed": True}, 12 * 18 // 8 + 12),
        (
            "polynomial",
            {"k": 128, "terms": (0, 1, 2, 3, "sqrt", "exp"), "dtype": "bfloat16"},
            344 + 4,
        ),
        ("polynomial", {"k": 50, "exact": 1, "terms": (0, 1, 2), "dtype": "float16"}, 127 + 4),
    ],
)
def test_bytes_per_token(name, settings, expected):
    one = codecs.CODECS[name](jax.ShapeDtypeStruct((LARGE,), jnp.float32), **settings)
    many = codecs.CODECS[name](jax.ShapeDtypeStruct((7, LARGE), jnp.float32), **settings)
    assert (codecs.nbytes(one), codecs.nbytes(many)) == (expected, 7 * expected)


CURVED = {"k": 30, "exact": 6}
INTEGERS = jax.ShapeDtypeStruct((3,), jnp.int32)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dense", {"dtype": "floa16"}, "unknown dtype 'floa16': did you mean 'float16'"),
        ("dense", {"spec": INTEGERS, "dtype": "float16"}, "unknown dtype of integers 'float16'"),
        (
            "dense",
            {"spec": INTEGERS, "dtype": "int64"},
            "unknown dtype of integers 'int64'.*'int32'",
        ),
        ("quantised", {"bound": 0}, "bound must be a finite number above 0, got 0"),
        ("quantised", {"bound": math.nan}, "bound must be a finite number above 0, got nan"),
        ("quantised", {"spec": INTEGERS}, r"floating, .* got int32\[3\]"),
        ("quantised", {"spec": jax.ShapeDtypeStruct((), jnp.float32)}, "at least 1 axes"),
        ("top_k", {"k": 0}, r"k must be an integer in 1\.\.40, got 0"),
        ("top_k", {"k": 41}, r"k must be an integer in 1\.\.40, got 41"),
        ("top_k", {"k": True}, r"k must be an integer in 1\.\.40, got True"),
        ("top_k", {"k": 3, "values": "float8"}, "unknown values 'float8': did you mean 'float"),
        ("top_k", {"k": 3, "packed": 1}, "packed must be true or false, got 1"),
        ("top_k", {"k": 3, "temperature": 0.0}, "temperature must be a finite number above 0"),
        ("top_k", {"k": 3, "temperature": "2"}, "temperature must be .* got '2'"),
        ("top_k", {"k": 3, "missing": "unifrm"}, "missing 'unifrm': did you mean 'uniform'"),
        ("top_k", {"spec": INTEGERS, "k": 3}, r"floating, .* got int32\[3\]"),
        ("top_p", {"k": 3, "p": 0.0}, "p must be a finite number above 0, at most 1, got 0.0"),
        ("top_p", {"k": 3, "p": 1.1}, "p must be a finite number above 0, at most 1, got 1.1"),
        ("sampled", {"draws": 256}, r"draws must be an integer in 1\.\.255, got 256"),
        ("sampled", {"draws": 9, "slots": 10}, r"slots must be an integer in 1\.\.9, got 10"),
        ("sampled", {"missing": "tail"}, "unknown missing 'tail'.*'sparse'.*'zero'"),
        ("polynomial", {**CURVED, "exact": 31}, r"exact must be an integer in 0\.\.30, got 31"),
        ("polynomial", {**CURVED, "dtype": "int8"}, "unknown dtype 'int8'"),
        ("polynomial", {**CURVED, "delta": "no"}, "delta must be true or false, got 'no'"),
        ("polynomial", {**CURVED, "terms": ["sqr"]}, "unknown term of terms 'sqr': did you mean"),
        ("polynomial", {**CURVED, "terms": [0.5]}, "must be an integer of at least 0, got 0.5"),
        ("polynomial", {**CURVED, "terms": [-1]}, "must be an integer of at least 0, got -1"),
        ("polynomial", {**CURVED, "terms": [1, 1]}, r"1 to 24 different ones .* got \(1, 1\)"),
        ("polynomial", {**CURVED, "terms": []}, "1 to 24 different ones"),
        ("polynomial", {"k": 4, "exact": 4}, r"0 to 0 different ones where k - exact = 0"),
        ("polynomial", {**CURVED, "bins": [[25, 3]]}, "at most k - exact = 24 together"),
        ("polynomial", {**CURVED, "bins": [[0, 3]]}, "at least 1 rank each"),
        ("polynomial", {**CURVED, "bins": [[4, 17]]}, r"bits in 1\.\.16\), got \(4, 17\)"),
        ("polynomial", {**CURVED, "bins": [4]}, r"pairs \(ranks, bits in 1\.\.16\), got \(4,\)"),
    ],
)
def test_bad_settings_are_refused(name, settings, message):
    settings = {"spec": SPEC, **settings}
    with pytest.raises(ValueError, match=message):
        codecs.CODECS[name](**settings)
