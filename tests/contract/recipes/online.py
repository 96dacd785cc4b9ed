"""An online stream, whose running error is the result."""

from __future__ import annotations

import jax.numpy as jnp
from contract.recipes.parts import TAUGHT, TEACHER, Kind, recipe

from jaxdistill import recipe as recipes


def disagreement(student, target):
    """Whether the answers differ, a value a record."""
    return (student.argmax(-1) != target.argmax(-1)).astype(jnp.float32)


ONLINE = {
    **TAUGHT,
    "student": {"net": "perceptron", "hidden": 8},
    "objective": {"kd": {"loss": "hinton_kd"}, "wrong": {"loss": "disagreement", "weight": 0.0}},
    "batch_size": 16,
    "order": "given",
    "spans": {"early": (0, 4), "late": (4, 8)},
}


def right(plan, outcomes):
    found = outcomes["online"].values
    halves = (found["train/early/wrong"], found["train/late/wrong"])
    assert abs(sum(halves) / 2 - found["train/wrong"]) < 1e-6
    assert 0 < halves[1] < 1
    assert {"online/train/", "online/train/late/"} <= recipes.metrics(plan)  # claims may ask for it


KIND = Kind(
    recipe(teacher=TEACHER, online=ONLINE),
    {("loss", "disagreement"): disagreement},
    {"teacher": "net", "online": "net"},
    right,
)
