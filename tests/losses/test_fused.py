"""The fused losses against the losses on logits: value, gradients, masks, meshes, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdistill import losses

N, H, G, V = 7, 3, 4, 10
DENSE = {
    "forward_kl": losses.forward_kl,
    "reverse_kl": losses.reverse_kl,
    "jsd": losses.generalized_jsd,
    "total_variation": losses.total_variation,
}


def _arrays(tokens=N, classes=V, others=V, dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(0), 8)
    normal = lambda key, *shape: jax.random.normal(key, shape, dtype)  # noqa: E731
    return {
        "hidden": normal(keys[0], tokens, H),
        "head": normal(keys[1], H, classes),
        "bias": normal(keys[2], classes),
        "teacher_hidden": normal(keys[3], tokens, G),
        "teacher_head": normal(keys[4], G, others),
        "teacher_bias": normal(keys[5], others),
        "labels": jax.random.randint(keys[6], (tokens,), 0, classes, jnp.int32),
        "weights": jax.random.uniform(keys[7], (tokens,), dtype).at[2].set(0),
    }


def _capped(hidden, head, bias, cap):
    logits = hidden @ head + bias[None]
    return logits if cap is None else cap * jnp.tanh(logits / cap)


def _dense(x, *, divergence, temperature, caps, ce_weight, **kwargs):
    student = _capped(x["hidden"], x["head"], x["bias"], caps[0])
    teacher = _capped(x["teacher_hidden"], x["teacher_head"], x["teacher_bias"], caps[1])
    values = 0.7 * DENSE[divergence](student, teacher, temperature=temperature, **kwargs)
    values += ce_weight * losses.cross_entropy(student, x["labels"])
    return jnp.sum(values * x["weights"])


def _fused(x, *, divergence, temperature, caps, ce_weight, **kwargs):
    return losses.linear_divergence(
        x["hidden"],
        x["head"],
        x["teacher_hidden"],
        x["teacher_head"],
        x["labels"] if ce_weight else None,
        divergence=divergence,
        temperature=temperature,
        divergence_weight=0.7,
        ce_weight=ce_weight,
        weights=x["weights"],
        student_bias=x["bias"],
        teacher_bias=x["teacher_bias"],
        student_cap=caps[0],
        teacher_cap=caps[1],
        **{"chunks": losses.Chunks(3), **kwargs},
    )


def _trained(loss, x, **options):
    """Value and gradients in what is trained."""
    names = ("hidden", "head", "bias", "weights")

    def of(trained):
        return loss({**x, **trained}, **options)

    value, gradients = jax.jit(jax.value_and_grad(of))({name: x[name] for name in names})
    # A token of weight 0 may hold anything, so its own loss is not told.
    gradients["weights"] = jnp.where(x["weights"] == 0, 0, gradients["weights"])
    return value, gradients


def _assert_same(ours, theirs, tolerance=1e-9):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        assert np.max(np.abs(a - b)) <= tolerance * max(np.max(np.abs(b)), 1e-3)


@pytest.mark.parametrize(
    ("divergence", "options"),
    [
        ("forward_kl", {"temperature": 1.0, "caps": (None, None), "ce_weight": 0.0}),
        ("forward_kl", {"temperature": 2.0, "caps": (1.5, 2.5), "ce_weight": 0.4}),
        ("reverse_kl", {"temperature": 2.0, "caps": (1.5, None), "ce_weight": 0.4}),
        ("jsd", {"temperature": 2.0, "caps": (1.5, 2.5), "ce_weight": 0.4, "beta": 0.3}),
        ("jsd", {"temperature": 1.5, "caps": (None, None), "ce_weight": 0.0, "beta": 0.0}),
        ("jsd", {"temperature": 1.5, "caps": (None, None), "ce_weight": 0.0, "beta": 1.0}),
        ("total_variation", {"temperature": 2.0, "caps": (1.5, 2.5), "ce_weight": 0.4}),
    ],
)
def test_equals_the_loss_on_logits(divergence, options):
    with jax.enable_x64(True):
        x = _arrays()
        options = {"divergence": divergence, **options}
        _assert_same(_trained(_fused, x, **options), _trained(_dense, x, **options))


PLAIN = {"divergence": "jsd", "temperature": 2.0, "caps": (None, None), "ce_weight": 0.5}


def test_float32_and_bfloat16():
    with jax.enable_x64(True):
        exact = _trained(_dense, _arrays(), **PLAIN)
        x = _arrays()
        x = jax.tree.map(lambda y: y.astype(jnp.float32) if y.dtype == jnp.float64 else y, x)
    value, gradients = _trained(_fused, x, **PLAIN)
    assert value.dtype == jnp.float32
    _assert_same((value, gradients), exact, 1e-5)
    low = {k: v.astype(jnp.bfloat16) if "hidden" in k or "head" in k else v for k, v in x.items()}
    value, gradients = _trained(_fused, low, **PLAIN)
    assert value.dtype == jnp.float32
    assert gradients["head"].dtype == jnp.bfloat16
    np.testing.assert_allclose(value, exact[0], rtol=0.03)


def test_chunks_and_leading_axes_do_not_matter():
    with jax.enable_x64(True):
        x = _arrays(tokens=6)
        expected = _fused(x, **PLAIN)
        for chunk in (1, 4, 6, 100):
            _assert_same(_fused(x, chunks=losses.Chunks(chunk), **PLAIN), expected)
        names = ("hidden", "teacher_hidden", "labels", "weights")
        folded = {k: v.reshape(2, 3, *v.shape[1:]) if k in names else v for k, v in x.items()}
        _assert_same(_fused(folded, **PLAIN), expected)


def test_tokens_of_weight_zero_may_hold_anything():
    with jax.enable_x64(True):
        x = _arrays()
        expected = _trained(_fused, x, **PLAIN)
        spoilt = {
            **x,
            "hidden": x["hidden"].at[2].set(jnp.nan),
            "teacher_hidden": x["teacher_hidden"].at[2].set(jnp.inf),
            "labels": x["labels"].at[2].set(-100),
        }
        value, gradients = _trained(_fused, spoilt, **PLAIN)
        _assert_same(value, expected[0])
        for name in ("hidden", "head", "bias"):
            _assert_same(gradients[name], expected[1][name])
        value, gradients = _trained(_fused, {**x, "weights": 0 * x["weights"]}, **PLAIN)
        assert value == 0
        assert all(not jnp.any(gradients[name]) for name in ("hidden", "head", "bias"))


def test_a_mask_counts_and_a_label_that_is_no_class_adds_nothing():
    with jax.enable_x64(True):
        x = _arrays()
        kept = x["weights"] > 0
        masked = _fused({**x, "weights": kept}, **PLAIN)
        _assert_same(masked, _fused({**x, "weights": kept.astype(jnp.float64)}, **PLAIN))
        ignored = {**x, "labels": jnp.full_like(x["labels"], -100)}
        _assert_same(_fused(ignored, **PLAIN), _fused(x, **{**PLAIN, "ce_weight": 0.0}))


def test_saturated_logits_are_finite():
    x = _arrays(dtype=jnp.float32)
    x = {**x, "hidden": 1e3 * x["hidden"], "teacher_hidden": 1e3 * x["teacher_hidden"]}
    for divergence in DENSE:
        result = _trained(_fused, x, **{**PLAIN, "divergence": divergence})
        assert all(bool(jnp.all(jnp.isfinite(y))) for y in jax.tree.leaves(result)), divergence


def test_temperature_and_weights_may_be_traced():
    with jax.enable_x64(True):
        x = _arrays()
        traced = jax.jit(lambda t: _fused(x, **{**PLAIN, "temperature": t, "beta": t / 4}))(2.0)
        _assert_same(traced, _fused(x, **PLAIN))


@pytest.mark.parametrize("divergence", DENSE)
@pytest.mark.parametrize("widths", [(10, 8), (8, 10)])
def test_unlike_vocabularies_have_no_mass_where_classes_are_missing(divergence, widths):
    with jax.enable_x64(True):
        x = _arrays(classes=widths[0], others=widths[1])
        options = {**PLAIN, "divergence": divergence}
        with pytest.raises(ValueError, match="unlike vocabularies"):
            _fused(x, **options)

        def dense(x, *, divergence, temperature, caps, ce_weight):
            student = _capped(x["hidden"], x["head"], x["bias"], None)
            teacher = _capped(x["teacher_hidden"], x["teacher_head"], x["teacher_bias"], None)
            width, narrow = max(widths), min(widths)
            filled = [
                jnp.pad(z, [(0, 0), (0, width - z.shape[1])], constant_values=-jnp.inf)
                for z in (student, teacher)
            ]
            if divergence == ("forward_kl" if widths[0] < widths[1] else "reverse_kl"):
                filled = [z[:, :narrow] for z in filled]
            values = 0.7 * DENSE[divergence](*filled, temperature=temperature)
            values += ce_weight * losses.cross_entropy(student, x["labels"])
            return jnp.sum(values * x["weights"])

        ours = _trained(lambda x, **o: _fused(x, unlike="zero_mass", **o), x, **options)
        _assert_same(ours, _trained(dense, x, **options))


def test_columns_beyond_the_vocabulary_have_no_mass():
    with jax.enable_x64(True):
        x = _arrays()
        narrow = {
            **x,
            **{k: x[k][..., :8] for k in ("head", "bias", "teacher_head", "teacher_bias")},
            "labels": x["labels"] % 8,
        }
        padded = {**x, "labels": x["labels"] % 8}
        value, gradients = _trained(lambda x, **o: _fused(x, vocabulary=8, **o), padded, **PLAIN)
        expected, wanted = _trained(_fused, narrow, **PLAIN)
        _assert_same(value, expected)
        _assert_same(gradients["hidden"], wanted["hidden"])
        _assert_same(gradients["head"][:, :8], wanted["head"])
        assert not jnp.any(gradients["head"][:, 8:])


@pytest.mark.parametrize("missing", ["renormalise", "zero", "tail", "sampled"])
def test_sparse_teachers_equal_the_sparse_loss(missing):
    with jax.enable_x64(True):
        x = _arrays()
        teacher = jax.nn.log_softmax(x["teacher_hidden"] @ x["teacher_head"])
        values, ids = jax.lax.top_k(teacher, 4)
        ids = ids.at[0, 3].set(V).at[1].set(-1)
        options = {"missing": missing, "temperature": 2.0}

        def dense(x):
            logits = _capped(x["hidden"], x["head"], x["bias"], 1.5)
            total = 0.7 * losses.sparse_kl(logits, ids, values, **options)
            total += 0.4 * losses.cross_entropy(logits, x["labels"])
            return jnp.sum(total * x["weights"])

        def fused(x):
            return losses.linear_sparse_kl(
                x["hidden"],
                x["head"],
                ids,
                values,
                x["labels"],
                divergence_weight=0.7,
                ce_weight=0.4,
                weights=x["weights"],
                student_bias=x["bias"],
                student_cap=1.5,
                chunks=losses.Chunks(3),
                **options,
            )

        _assert_same(_trained(fused, x), _trained(dense, x))


def test_all_classes_stored_leave_no_tail():
    x = _arrays(dtype=jnp.float32)
    teacher = jax.nn.log_softmax(3 * (x["teacher_hidden"] @ x["teacher_head"]))
    values, ids = jax.lax.top_k(teacher, V)
    assert (jnp.exp(values).sum(-1) != 1).any()  # by rounding
    logits = x["hidden"] @ x["head"]
    whole = losses.forward_kl(logits, teacher)
    np.testing.assert_allclose(losses.sparse_kl(logits, ids, values), whole, rtol=1e-5)
    fused = losses.linear_sparse_kl(x["hidden"], x["head"], ids, values, chunks=losses.Chunks(3))
    np.testing.assert_allclose(fused, whole.sum(), rtol=1e-5)


def test_second_derivatives_are_refused_in_words():
    x = _arrays(dtype=jnp.float32)
    twice = jax.grad(lambda h: jnp.sum(jax.grad(lambda g: _fused({**x, "hidden": g}, **PLAIN))(h)))
    with pytest.raises(NotImplementedError, match="no second derivative"):
        twice(x["hidden"])


def test_the_value_alone_takes_no_gradient():
    x = _arrays(dtype=jnp.float32)

    def products(function):
        text = str(jax.make_jaxpr(function)(x["hidden"]))
        return text.count("dot_general")

    value = lambda h: _fused({**x, "hidden": h}, **PLAIN)  # noqa: E731
    assert products(value) == 2
    assert products(jax.value_and_grad(value)) == 4


@pytest.mark.parametrize(
    ("kind", "axes"),
    [
        (AxisType.Auto, ("data", "model")),
        (AxisType.Auto, (None, None)),
        (AxisType.Explicit, ("data", None)),
        (AxisType.Explicit, (None, "model")),
        (AxisType.Explicit, (None, None)),
    ],
)
def test_sharded_tokens_and_classes(kind, axes):
    with jax.enable_x64(True):
        x = _arrays(tokens=8, classes=12, others=12)
        options = {**PLAIN, "vocabulary": 11}
        x["labels"] = x["labels"] % 11
        expected = _trained(_fused, x, **options)
        mesh = jax.make_mesh((2, 2), ("data", "model"), (kind, kind), devices=jax.devices()[:4])
        tokens, classes = axes
        specs = {
            "hidden": P(tokens),
            "teacher_hidden": P(tokens),
            "labels": P(tokens),
            "weights": P(tokens),
            "head": P(None, classes),
            "teacher_head": P(None, classes),
            "bias": P(classes),
            "teacher_bias": P(classes),
        }
        with jax.set_mesh(mesh):
            placed = {k: jax.device_put(v, NamedSharding(mesh, specs[k])) for k, v in x.items()}
            ours = _trained(
                _fused,
                placed,
                chunks=losses.Chunks(3, tokens, classes),
                **options,
            )
            ours = jax.tree.map(np.asarray, ours)
        _assert_same(ours, expected)


def test_memory_does_not_grow_with_the_tokens():
    def temporary(tokens):
        shapes = jax.eval_shape(lambda: _arrays(tokens, 64, 64, jnp.float32))

        def loss(hidden, head, rest):
            return _fused(
                {**rest, "hidden": hidden, "head": head}, chunks=losses.Chunks(8), **PLAIN
            )

        lowered = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(
            shapes["hidden"], shapes["head"], shapes
        )
        compiled = lowered.compile()
        assert f"[{tokens},64]" not in compiled.as_text()
        return compiled.memory_analysis().temp_size_in_bytes

    first, second = temporary(128), temporary(256)
    assert second <= 1.2 * first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"divergence": "kl"}, "divergence 'kl'"),
        ({"beta": 2.0}, "beta must be in"),
        ({"unlike": "pad"}, "unlike 'pad'"),
    ],
)
def test_bad_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        _fused(_arrays(dtype=jnp.float32), **{**PLAIN, **change})


def test_bad_shapes_are_refused():
    x = _arrays(dtype=jnp.float32)
    for name, value, message in (
        ("head", jnp.ones((H + 1, V)), "a head must be"),
        ("bias", jnp.ones(V + 1), "the bias of a head"),
        ("weights", jnp.ones(N + 1), "weights must have"),
        ("labels", jnp.ones(N), "labels must be integers"),
        ("teacher_hidden", jnp.ones((N + 1, G)), "same tokens"),
        ("hidden", jnp.ones((N, H), jnp.bfloat16), "one dtype"),
    ):
        with pytest.raises(ValueError, match=message):
            _fused({**x, name: value}, **PLAIN)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_garbage_shows_where_it_counts_and_nowhere_else(dtype):
    keys = jax.random.split(jax.random.key(0), 4)
    hidden, taught = (jax.random.normal(key, (4, 3)).astype(dtype) for key in keys[:2])
    head, other = (jax.random.normal(key, (3, 5)).astype(dtype) for key in keys[2:])
    ids = jnp.array([[0, 1], [2, 4], [1, 3], [0, 2]])
    known = jnp.log(jnp.full((4, 2), 0.3))
    labels = jnp.array([1, -100, 4, 0])
    weights = jnp.array([1.0, 0.0, 1.0, 1.0])

    def dense(hidden, taught, known):
        return losses.linear_divergence(hidden, head, taught, other, labels, weights=weights)

    def sparse(hidden, taught, known):
        return losses.linear_sparse_kl(hidden, head, ids, known, labels, weights=weights)

    for loss, used in ((dense, (0, 1)), (sparse, (0, 2))):
        run = jax.jit(jax.value_and_grad(loss))
        args = (hidden, taught, known)
        zeros = run(*(x.at[1].set(0) for x in args))
        for junk in (np.nan, -np.inf, 1e30):
            filling = jnp.asarray(junk, jnp.float32)
            spoilt = run(*(x.at[1].set(filling.astype(x.dtype)) for x in args))
            for ours, theirs in zip(spoilt, zeros, strict=True):
                np.testing.assert_array_equal(
                    np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
                )
        for side in used:
            for bad in (jnp.nan, jnp.inf):
                given = [x.at[2, 0].set(bad) if i == side else x for i, x in enumerate(args)]
                assert not jnp.isfinite(run(*given)[0])


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="empty batch"):
        losses.linear_divergence(
            jnp.zeros((0, 3)), jnp.zeros((3, 5)), jnp.zeros((0, 3)), jnp.zeros((3, 5))
        )
