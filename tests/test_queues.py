"""A queue of teacher features: its order, its start, and the loss that reads it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import adapt, from_linen, losses, model_to_model, models
from jaxdistill.net import Forward
from jaxdistill.queues import similarity_queue
from jaxdistill.training.checks import check

KEY = jax.random.key(0)


def seen(features):
    return Forward(features, {}, {}, {})


def unit(x):
    return np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True)


def test_a_batch_is_compared_with_those_before_it_and_enters_in_front():
    objective = similarity_queue(size=10, temperature=0.5, teacher_temperature=0.1)
    batches = jax.random.normal(KEY, (4, 4, 3))
    params, state = objective.init(KEY, seen(batches[0]), {"out": batches[0]}, {})
    assert state["queue"].shape == (10, 3)
    np.testing.assert_allclose(jnp.linalg.norm(state["queue"], axis=1), 1, rtol=1e-6)
    for batch in batches:
        before = state["queue"]
        student = batch[::-1] + 1
        terms, state = objective.terms(params, state, seen(student), {"out": batch}, {}, step=0)
        wanted = losses.queue_similarity(
            student, batch, before, temperature=0.5, teacher_temperature=0.1
        )
        np.testing.assert_allclose(terms["queue"].total, wanted.sum(), rtol=1e-6)
        assert terms["queue"].coupled
    # The last two batches whole, and of the one before what came first.
    newest = np.concatenate([unit(batches[3]), unit(batches[2]), unit(batches[1])[:2]])
    np.testing.assert_allclose(state["queue"], newest, rtol=1e-5)


def test_the_loss_is_the_published_formula():
    s, t, queue = (jax.random.normal(k, (n, 5)) for k, n in zip(
        jax.random.split(KEY, 3), (3, 3, 7), strict=True))  # fmt: skip
    rows = []
    for one, other in zip(unit(s), unit(t), strict=True):
        among = np.concatenate([[other], unit(queue)])
        wanted = np.exp(among @ other / 0.3)
        found = among @ one / 0.7
        log_p = found - np.log(np.exp(found).sum())
        rows.append(-(wanted / wanted.sum() * log_p).sum())
    ours = losses.queue_similarity(s, t, queue, temperature=0.7, teacher_temperature=0.3)
    np.testing.assert_allclose(ours, rows, rtol=1e-5)


def test_equal_similarities_cost_least():
    t, queue = jax.random.normal(KEY, (4, 6)), jax.random.normal(jax.random.key(1), (9, 6))
    loss = functools.partial(losses.queue_similarity, temperature=0.2, teacher_temperature=0.2)
    least = loss(t, t, queue)
    np.testing.assert_allclose(jax.grad(lambda s: loss(s, t, queue).sum())(t), 0, atol=1e-5)
    for key in jax.random.split(KEY, 5):
        assert (loss(t + jax.random.normal(key, t.shape), t, queue) >= least).all()


@pytest.mark.parametrize(
    ("student", "target", "words"),
    [((4, 2, 3), (4, 3), "keeps vectors"), ((4, 5), (4, 3), "projector='mlp' would map")],
)
def test_what_no_queue_holds_is_refused(student, target, words):
    with pytest.raises(ValueError, match=words):
        similarity_queue().init(KEY, seen(jnp.ones(student)), {"out": jnp.ones(target)}, {})


def test_a_student_learns_from_it_and_microbatches_are_refused():
    net = from_linen(models.MLP(widths=(8,), classes=4))
    batch = {"image": jax.random.normal(KEY, (8, 5))}

    def distiller(accumulate):
        return model_to_model(
            net,
            lambda sources, batch, *_: {"out": batch["image"]},
            similarity_queue(size=16, projector=adapt.mlp),
            optax.adam(1e-2),
            accumulate=accumulate,
        )

    own = distiller(1)
    state = check(own, KEY, {}, {}, batch)
    state, step = own.init(KEY, {}, batch), jax.jit(own.step)
    found = []
    for _ in range(30):
        state, metrics = step(state, {}, batch)
        found.append(float(metrics["loss"][0]))
    assert found[-1] < found[2]
    with pytest.raises(ValueError, match="queue"):
        jax.eval_shape(distiller(2).step, distiller(2).init(KEY, {}, batch), {}, batch)
