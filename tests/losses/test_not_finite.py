"""What is not finite shows in the value if it counts, and reaches nothing if it does not.

The contract suite asks this of every loss as its card calls it; here are other options, masks of
tokens, and the ways in.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses
from jaxdistill.adapt import linear
from jaxdistill.losses._entry import BATCH
from jaxdistill.net import Forward
from jaxdistill.objective import match, per_example

JUNK = (np.nan, -np.inf, 1e30)
SILENT = [entry for entry in losses.catalogue() if entry.accepts_neginf and entry.kind != BATCH]


def _normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def _calls():
    rows, grids = (_normal(0, 3, 4), _normal(1, 3, 4)), (_normal(0, 2, 4, 4, 3),) * 2
    for normalise in ("none", "l2", "layer_norm"):
        for distance in ("l1", "smooth_l1"):
            yield losses.feature_match, rows, {"normalise": normalise, "distance": distance}
    for p, q in ((1, 1), (2, 1), (2, 3)):
        yield losses.kta, rows, {"p": p, "q": q}
    yield losses.mmd, rows, {"kernel": "linear"}
    yield losses.cka, rows, {"kernel": "rbf", "bandwidth": 1.0}
    yield losses.nst, grids, {"kernel": "rbf"}
    yield losses.info_nce, rows, {"normalise": False}
    yield losses.hinge_rank, rows, {"negatives": "all"}
    yield losses.factor_transfer, grids, {"factors": "mean_power"}
    yield losses.correlation_congruence, rows, {"kernel": "bilinear"}
    yield losses.generalized_jsd, rows, {"beta": 0.0}
    yield losses.generalized_jsd, rows, {"beta": 1.0}


@pytest.mark.parametrize(("loss", "args", "options"), list(_calls()))
def test_a_number_that_is_not_finite_shows_under_other_options(loss, args, options):
    run = jax.jit(lambda *args: loss(*args, **options))
    for side in (0, 1):
        for bad in (np.nan, np.inf):
            spoilt = np.array(args[side])
            spoilt.reshape(-1)[1] = bad
            given = [spoilt if i == side else np.asarray(x) for i, x in enumerate(args)]
            assert not np.all(np.isfinite(run(*given))), (side, bad)


def _square(x):
    return (x[:, :, None, :1] + x[:, None, :, :1]).transpose(0, 3, 1, 2)


MASKED_TOKENS = {
    "attention_mse": lambda x, mask: losses.attention_mse(_square(x), _square(x) / 2, mask=mask),
    "attention_kl": lambda x, mask: losses.attention_kl(_square(x), _square(x) / 2, mask=mask),
    "qkv_relations": lambda x, mask: losses.qkv_relations(
        (x,) * 3, (x / 2,) * 3, heads=2, mask=mask
    ),
    "qkv_relations mse": lambda x, mask: losses.qkv_relations(
        (x,) * 3, (x / 2,) * 3, heads=2, kind="mse", mask=mask
    ),
    "fsp": lambda x, mask: losses.fsp((x, x), (x / 2, x / 3), mask=mask),
    "token_gram": lambda x, mask: losses.token_gram((x, x), (x / 2, x / 3), mask=mask),
    "mgd": lambda x, mask: losses.mgd(x, x / 2, mask=mask),
    "hinge_rank": lambda x, mask: losses.hinge_rank(x, jnp.ones_like(x)[:, 0], where=mask),
    "minillm_advantages": lambda x, mask: losses.minillm_advantages(
        x[..., 0], x[..., 1], where=mask
    ),
}


@pytest.mark.parametrize("name", MASKED_TOKENS)
def test_masked_tokens_reach_neither_value_nor_gradient(name):
    mask = jnp.array([[True, True, False], [False, True, True]])
    run = jax.jit(jax.value_and_grad(lambda x: jnp.sum(MASKED_TOKENS[name](x, mask))))
    for dtype in ("float16", "bfloat16", "float32"):
        x = _normal(0, 2, 3, 4).astype(dtype)
        zeros = run(jnp.where(mask[..., None], x, 0))
        assert np.isfinite(zeros[0])
        for junk in JUNK:
            given = run(jnp.where(mask[..., None], x, jnp.asarray(junk, "float32").astype(dtype)))
            for ours, theirs in zip(given, zeros, strict=True):
                np.testing.assert_array_equal(
                    np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
                )


@pytest.mark.parametrize("entry", SILENT, ids=lambda entry: entry.name)
def test_a_teacher_that_rules_all_out_gives_no_gradient_where_it_is_dropped(entry):
    (student, teacher, *rest), kwargs = entry.make(jax.random.key(0), jnp.float32)
    silent = teacher.at[0].set(-jnp.inf)

    def total(student):
        values = entry.loss(student, silent, *rest, **kwargs)
        return per_example(1.0, values, jnp.arange(len(values)) > 0).total, values

    gradient, values = jax.jit(jax.grad(total, has_aux=True))(student)
    assert jnp.all(jnp.isfinite(values[1:]))
    assert jnp.all(jnp.isfinite(gradient))
    assert jnp.all(gradient[0] == 0)
    # It is no distribution, so it does not pass for one. A query that looks nowhere is none.
    assert jnp.all(jnp.isnan(values[0])) or entry.name == "attention_kl"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_wrapper_masks_a_bare_loss(dtype):
    student, teacher = (_normal(seed, 4, 5).astype(dtype) for seed in (0, 1))
    labels, where = jnp.array([0, 4, 2, 1]), jnp.array([True, False, True, False])
    log_variance = jnp.zeros_like(student)
    for loss, rest, rows in (
        (losses.hinton_kd, (), (0, 1)),
        (losses.decoupled_kd, (labels,), (0, 1)),
        (losses.pad, (log_variance,), (0, 1, 2)),
        (losses.dist, (), (0, 1)),
    ):
        args = (student, teacher, *rest)
        spoilt = [
            x.at[1].set(jnp.nan).at[3].set(-jnp.inf) if i in rows else x for i, x in enumerate(args)
        ]
        run = jax.jit(losses.masked(loss, rows=rows))
        slope = jax.jit(jax.grad(lambda *given: run(*given, where=where).sum()))  # noqa: B023
        out, gradient = run(*spoilt, where=where), slope(*spoilt)
        expected = jax.jit(loss)(*(x[::2] for x in args))
        np.testing.assert_allclose(out if out.ndim == 0 else out[where], expected, rtol=1e-5)
        assert out.ndim == 0 or jnp.all(out[~where] == 0)
        assert jnp.all(jnp.isfinite(gradient))
        assert jnp.all(gradient[~where] == 0)


def test_the_wrapper_refuses_what_it_cannot_mask():
    x = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="must take where itself"):
        losses.masked(lambda s, t: jnp.mean(s - t))(x, x, where=jnp.array([True, False]))


@pytest.mark.parametrize("junk", JUNK)
def test_match_masks_all_that_it_reads_before_projector_and_loss(junk):
    where = jnp.array([True, False, True])

    def run(filling):
        student, teacher = _normal(0, 3, 4), _normal(1, 3, 2)
        raw = _normal(2, 3, 2)
        student, teacher, raw = (x.at[1].set(filling) for x in (student, teacher, raw))
        objective = match(
            losses.vid,
            name="vid",
            student="features",
            target="features",
            arguments={"raw_variance": "batch/raw"},
            projector=linear,
        )
        batch = {"where": where, "raw": raw}

        def loss(params, features):
            forward = Forward(None, {"features": features}, {}, {})
            terms, _ = objective.terms(
                params, state, forward, {"features": teacher}, batch, step=jnp.zeros((), "int32")
            )
            return terms["vid"].total

        start = Forward(None, {"features": student}, {}, {})
        params, state = objective.init(jax.random.key(0), start, {"features": teacher}, batch)
        return jax.value_and_grad(loss, argnums=(0, 1))(params, student)

    spoilt, zeros = run(junk), run(0.0)
    for ours, theirs in zip(jax.tree.leaves(spoilt), jax.tree.leaves(zeros), strict=True):
        assert jnp.all(jnp.isfinite(ours))
        np.testing.assert_array_equal(ours, theirs)
    assert jnp.all(spoilt[1][1][1] == 0)
