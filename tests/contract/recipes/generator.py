"""A generator with an encoder and a discriminator, and images that it dreams."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from contract.networks import dreaming, run
from contract.recipes.parts import ADAM, TEACHER, Kind, recipe, series

from jaxdistill.distiller import Work
from jaxdistill.settings import Count, Earlier, Positive


def dream(context, *, teacher: Earlier, updates: Count = 2, rate: Positive = 1e-2):
    """An encoder and a generator that a discriminator finds out."""
    return dreaming(
        context.net, context.net_of(teacher), context.tx, optax.adam(rate), updates=updates
    )


def dreams(context, *, generator: Earlier, count: Count = 8):
    """Images of every class that a generator makes."""

    def draw(results, data, key):
        def of(label):
            codes = jax.random.normal(jax.random.fold_in(key, label), (count, 3))
            drawn = jnp.pad(codes, ((0, 0), (2, 0))).at[:, label].set(1.0)
            return jax.nn.sigmoid(run(results[generator]["generator"], drawn))

        return {f"class {k}": np.asarray(of(k)).reshape(-1, 2, 4, 1) for k in (0, 1)}

    return Work(draw, "images")


DREAM = {
    "student": {"net": "perceptron", "hidden": 8},
    "distiller": {"name": "dream", "frozen": ("teacher",), "teacher": "teacher"},
    "optimizer": ADAM,
    "batch_size": 32,
    "steps": 8,
    "log_every": 2,
}
DREAMS = {"work": {"name": "dreams", "generator": "dream", "count": 4}}


def right(plan, outcomes):
    named = series(outcomes["dream"], "named")
    assert named[-1] < named[0]
    assert outcomes["dream"].result["encoder"][1]["mean"].any()  # its statistics moved
    assert set(outcomes["dream"].result) == {"encoder", "generator"}
    assert {row.shape for row in outcomes["dreams"].result.values()} == {(4, 2, 4, 1)}


KIND = Kind(
    recipe(teacher=TEACHER, dream=DREAM, dreams=DREAMS),
    {("distiller", "dream"): dream, ("work", "dreams"): dreams},
    {"teacher": "net", "dream": "arrays", "dreams": "images"},
    right,
)
