"""Trials whose result is no net, or whose records are not only given."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from contract.parts import (
    ADAM,
    IMAGES,
    LABELS,
    RNG,
    SOURCE,
    STEPS,
    STUDENT,
    TEACHER,
    Trial,
    agreement,
    divergence,
    falls,
    stage,
    trained_teacher,
)

from jaxdistill import targets
from jaxdistill.data.sources import arrays
from jaxdistill.data.stream import stream
from jaxdistill.distiller import Distiller, model_to_model
from jaxdistill.objective import per_example


def online_stream() -> Trial:
    """Every record is answered before it is learned from: the running error is what counts."""

    def objective(forward, goal, batch):
        wrong = forward.out.argmax(-1) != goal["out"].argmax(-1)
        return agreement(forward, goal, batch) | {"wrong": per_example(0.0, wrong.astype(float))}

    frozen = {"teacher": trained_teacher()}
    distiller = model_to_model(STUDENT, targets.live(TEACHER), objective, ADAM)
    data = stream(SOURCE, 16, seed=0, order="given", threads=0)
    spans = {"early": (0, 4), "late": (STEPS - 4, STEPS)}

    def right(outcome):
        state = jax.jit(distiller.init)(jax.random.key(0), frozen, data.at(0))
        step, errors = jax.jit(distiller.step), []
        for place in range(STEPS):
            rows = np.arange(16 * place, 16 * place + 16) % len(IMAGES)
            student, teacher = distiller.result(state), frozen["teacher"]
            ours = STUDENT.apply(*student, IMAGES[rows], train=True).out.argmax(-1)
            errors.append((ours != TEACHER.apply(*teacher, IMAGES[rows]).out.argmax(-1)).mean())
            batch = {"image": IMAGES[rows], "label": LABELS[rows], "index": rows}
            state, _ = step(state, frozen, batch)
        found = outcome.values
        np.testing.assert_allclose(found["train/wrong"], np.mean(errors), atol=1e-6)
        np.testing.assert_allclose(found["train/late/wrong"], np.mean(errors[-4:]), atol=1e-6)
        assert found["train/late/wrong"] < found["train/early/wrong"]

    return Trial(stage(distiller, frozen, data=data, spans=spans), right)


class Synthetic(NamedTuple):
    step: jax.Array
    key: jax.Array
    learned: Any
    labels: jax.Array
    opt: Any


def trajectory_matching(inner: int = 4) -> Trial:
    """The result is a data set, learned through the training of a linear model on it."""
    tx = optax.sgd(1e-3)

    def loss(weights, images, labels):
        logits = images @ weights.reshape(8, 2)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def init(key, frozen, batch):
        learned = {"images": frozen["real"]["image"], "rate": jnp.float32(0.1)}
        return Synthetic(jnp.int32(0), key, learned, frozen["real"]["label"], tx.init(learned))

    def step(state, frozen, batch):
        key_path, key_start = jax.random.split(jax.random.fold_in(state.key, state.step))
        path = frozen["paths"][jax.random.randint(key_path, (), 0, 3)]
        begin = jax.random.randint(key_start, (), 0, 4)
        start, goal = path[begin], path[begin + 2]

        def outer(learned):
            def descend(weights, _):
                return weights - learned["rate"] * jax.grad(loss)(
                    weights, learned["images"], state.labels
                ), None

            end, _ = jax.lax.scan(jax.checkpoint(descend), start, None, length=inner)
            return ((end - goal) ** 2).sum() / ((start - goal) ** 2).sum()

        value, grads = jax.value_and_grad(outer)(state.learned)
        updates, opt = tx.update(grads, state.opt)
        learned = optax.apply_updates(state.learned, updates)
        return Synthetic(state.step + 1, state.key, learned, state.labels, opt), {
            "match": (value, 1.0)
        }

    paths = jnp.cumsum(0.1 * jax.random.normal(jax.random.key(3), (3, 7, 16)), 1)
    real = {"image": jnp.asarray(IMAGES[:4]), "label": jnp.asarray(LABELS[:4])}

    def result(state):
        return {**state.learned, "labels": state.labels}

    def right(outcome):
        assert (outcome.result["images"] != real["image"]).any()
        np.testing.assert_array_equal(outcome.result["labels"], real["label"])

    # It needs no batches.
    distiller = Distiller(init, step, result, takes=0, kind="data_set")
    return Trial(stage(distiller, {"paths": paths, "real": real}, data=None), right)


class Writer(NamedTuple):
    step: jax.Array
    key: jax.Array
    params: jax.Array
    opt: Any
    buffer: jax.Array


def on_policy(vocabulary: int = 8, length: int = 10, rows: int = 64) -> Trial:
    """A bigram student writes sequences into a buffer; the teacher judges what is drawn from it."""

    def init(key, frozen, batch):
        draft = frozen["draft"]
        return Writer(
            jnp.int32(0), key, draft, ADAM.init(draft), jnp.zeros((rows, length), jnp.int32)
        )

    def step(state, frozen, batch):
        key_write, key_mix, key_draw = jax.random.split(
            jax.random.fold_in(state.key, state.step), 3
        )
        count = batch["tokens"].shape[0]

        def write(token, key):
            token = jax.random.categorical(key, state.params[token])
            return token, token

        start = jnp.zeros(count, jnp.int32)
        _, written = jax.lax.scan(write, start, jax.random.split(key_write, length))
        place = (state.step % (rows // count)) * count
        buffer = jax.lax.dynamic_update_slice(state.buffer, written.T, (place, 0))
        filled = jnp.minimum((state.step + 1) * count, rows)
        own = buffer[jax.random.randint(key_draw, (count,), 0, filled)]
        tokens = jnp.where(jax.random.bernoulli(key_mix, 0.5, (count, 1)), own, batch["tokens"])
        judge = lambda params: divergence(frozen["teacher"][tokens], params[tokens]).mean()  # noqa: E731
        value, grads = jax.value_and_grad(judge)(state.params)
        updates, opt = ADAM.update(grads, state.opt)
        params = optax.apply_updates(state.params, updates)
        return Writer(state.step + 1, state.key, params, opt, buffer), {"kl": (value, 1.0)}

    teacher, draft = jax.random.normal(jax.random.key(4), (2, vocabulary, vocabulary))
    tokens = arrays({"tokens": RNG.integers(0, vocabulary, (128, length))})
    data = stream(tokens, 16, seed=0, threads=0)
    frozen = {"teacher": teacher, "draft": draft}
    return Trial(stage(Distiller(init, step, lambda s: s.params), frozen, data=data), falls("kl"))
