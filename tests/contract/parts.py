"""What trials share: a trial itself, small nets, records, and a stage of a few steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdistill.data.sources import arrays
from jaxdistill.data.stream import stream
from jaxdistill.distiller import model_to_model
from jaxdistill.net import Forward, Net
from jaxdistill.objective import per_example
from jaxdistill.training.loop import Outcome, Stage, run_stage


class Trial(NamedTuple):
    """A kind of distillation, small enough to be read at a glance.

    Attributes:
        stage: what the loop runs.
        right: asserts of what it left behind what would fail if the kind were wrong.
    """

    stage: Stage
    right: Callable[[Outcome], None]


RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(256, 8)).astype(np.float32)
LABELS = (IMAGES[:, 0] > 0).astype(np.int32)
SOURCE = arrays({"image": IMAGES, "label": LABELS})
BATCHES = stream(SOURCE, 32, seed=0, threads=0)
ADAM, SGD = optax.adam(1e-2), optax.sgd(0.1)
STEPS = 12


def perceptron(hidden: int, classes: int = 2) -> Net:
    """One hidden layer, centred by batch statistics."""

    def init(key, inputs):
        first, second = jax.random.split(key)
        params = {
            "first": 0.3 * jax.random.normal(first, (inputs.shape[-1], hidden)),
            "second": 0.3 * jax.random.normal(second, (hidden, classes)),
        }
        return params, {"mean": jnp.zeros(hidden)}

    def apply(params, state, inputs, *, taps=(), train=False, rng=None):
        sums = inputs @ params["first"]
        mean = sums.mean(0) if train else state["mean"]
        hidden = jnp.tanh(sums - mean[None])
        moved = {"mean": 0.9 * state["mean"] + 0.1 * jax.lax.stop_gradient(mean)}
        out = hidden @ params["second"]
        return Forward(out, {"hidden": hidden}, moved if train else state, params)

    return Net(init, apply)


TEACHER, STUDENT = perceptron(32), perceptron(8)


def divergence(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """Kullback-Leibler divergence of logits, one value a row."""
    log_teacher, log_student = jax.nn.log_softmax(teacher), jax.nn.log_softmax(student)
    return (jnp.exp(log_teacher) * (log_teacher - log_student)).sum(-1)


def cross_entropy(forward, goal, batch):
    """An objective of labels."""
    losses = optax.softmax_cross_entropy_with_integer_labels(forward.out, batch["label"])
    return {"ce": per_example(1.0, losses)}


def agreement(forward, goal, batch):
    """An objective of a teacher's logits."""
    return {"kd": per_example(1.0, divergence(goal["out"], forward.out))}


def no_targets(sources, batch, key, step):
    """Labels are in the batch."""
    return {}


def stage(distiller: Any, frozen: dict[str, Any] | None = None, **settings: Any) -> Stage:
    """A few steps on the records of all trials."""
    settings = {"name": "trial", "data": BATCHES, "steps": STEPS, "log_every": 4, **settings}
    return Stage(distiller=distiller, frozen=frozen or {}, **settings)


@functools.cache
def trained_teacher() -> Any:
    """Stage one of a hand-over: a teacher from labels."""
    return run_stage(
        stage(model_to_model(TEACHER, no_targets, cross_entropy, ADAM)), quiet=True
    ).result


def falls(name: str) -> Callable[[Outcome], None]:
    """What many trials must show: a metric of the last steps below that of the first."""

    def right(outcome: Outcome) -> None:
        values = [line[name] for line in outcome.metrics if line["kind"] == "train"]
        assert values[-1] < values[0], values

    return right


def equal(one: Any, other: Any) -> None:
    """Two trees are the same bit for bit."""
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), jax.tree_util.keystr(path))


def near(one: Any, other: Any, tolerance: float = 1e-5) -> None:
    """Two trees are the same up to rounding."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=20 * tolerance, atol=tolerance)


def one_step(distiller: Any, frozen: Any, batch: Any, key: int = 0) -> tuple[Any, Any]:
    """The state before and after one compiled step."""
    before = jax.jit(distiller.init)(jax.random.key(key), frozen, batch)
    return before, jax.jit(distiller.step)(before, frozen, batch)[0]
