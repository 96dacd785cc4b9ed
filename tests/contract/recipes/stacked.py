"""Students stacked on an axis, measured one by one."""

from __future__ import annotations

from typing import Any

import jax
from contract.parts import agreement
from contract.recipes.parts import ADAM, TEACHER, Kind, recipe, series

from jaxdistill import targets
from jaxdistill.distiller import model_to_model
from jaxdistill.settings import Count, Earlier
from jaxdistill.training.loop import over_seeds


def students(context, *, teacher: Earlier, count: Count):
    """Several students of one teacher, each from a start of its own."""
    taught = targets.live(context.net_of(teacher), teacher, inputs="teacher")
    own = {"inputs": "student", "prepare": context.prepare}
    alone = model_to_model(context.net, taught, agreement, context.tx, **own)
    return over_seeds(alone, count)._replace(kind="arrays")


def spread(context, *, classes: Count):
    """The accuracies of the best and of the worst student."""

    def answers(result, image):
        return jax.vmap(lambda own: context.net.apply(*own, image).out)(result)

    def measure(result, frozen, data):
        right: Any = 0
        total = 0
        for batch in data:
            said = answers(result, batch["image"])[..., :classes].argmax(-1)
            right += (said == batch["label"][None]).sum(1)
            total += len(batch["label"])
        return {"best": max(right) / total, "worst": min(right) / total}

    return measure


STACKED = {
    "student": {"net": "perceptron", "hidden": 8},
    "distiller": {
        "name": "students",
        "frozen": ("teacher",),
        "teacher": "teacher",
        "count": 3,
    },
    "optimizer": ADAM,
    "batch_size": 32,
    "steps": 8,
    "log_every": 2,
    "evaluate": {"each": {"evaluator": "spread", "classes": 2}},
}


def right(plan, outcomes):
    assert outcomes["stacked"].result[0]["first"].shape == (3, 8, 8)
    found = outcomes["stacked"].values
    assert 0 < found["validation/worst"] <= found["validation/best"] <= 1
    losses = series(outcomes["stacked"], "kd")
    assert losses[-1] < losses[0]


KIND = Kind(
    recipe(teacher=TEACHER, stacked=STACKED),
    {("distiller", "students"): students, ("evaluator", "spread"): spread},
    {"teacher": "net", "stacked": "arrays"},
    right,
)
