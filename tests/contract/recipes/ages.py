"""A moving teacher, read from a stack of its own ages."""

from __future__ import annotations

import jax
import numpy as np
from contract.parts import cross_entropy, no_targets
from contract.recipes.parts import ADAM, TAUGHT, Kind, recipe, series
from contract.students import ageing, of_age

from jaxdistill.distiller import model_to_model
from jaxdistill.settings import Count, Earlier


def kept_ages(context, *, ages: Count, every: Count):
    """A net that learns labels, and is kept after every so many steps."""
    own = (no_targets, cross_entropy, context.tx)
    inner = model_to_model(context.net, *own, inputs="student", prepare=context.prepare)
    return ageing(inner, ages, every)


def aged(context, *, stage: Earlier, every: Count):
    """What a net said when it was as old as the student is."""
    return of_age(context.net_of(stage), stage, every, inputs="teacher")


AGES = {
    "student": {"net": "perceptron", "hidden": 16},
    "distiller": {"name": "kept_ages", "ages": 3, "every": 4},
    "optimizer": ADAM,
    "batch_size": 32,
    "steps": 8,
}
MOVING = {
    **TAUGHT,
    "student": {"net": "perceptron", "hidden": 8},
    "targets": {"kind": "aged", "stage": "ages", "every": 4},
}


def right(plan, outcomes):
    weights = outcomes["ages"].result[0]["first"]
    assert weights.shape == (3, 8, 16)
    assert not np.allclose(weights[0], weights[1])
    assert not np.allclose(weights[1], weights[2])
    losses = series(outcomes["moving"], "kd")
    assert losses[-1] < losses[0]
    assert all(leaf.shape[0] != 3 for leaf in jax.tree.leaves(outcomes["moving"].result))


KIND = Kind(
    recipe(ages=AGES, moving=MOVING),
    {("distiller", "kept_ages"): kept_ages, ("kind of targets", "aged"): aged},
    {"ages": "arrays", "moving": "net"},
    right,
)
