"""Low-rank adapters, whose base is there once and teaches them."""

from __future__ import annotations

from contract.recipes.parts import LABELLED, TAUGHT, TEACHER, Kind, recipe

ADAPTED = {
    **TAUGHT,
    "student": {"net": "lora", "base": "teacher", "at": ("first", "second"), "rank": 1},
    "objective": {"kd": {"loss": "hinton_kd", "weight": 0.5}, **LABELLED},
    "evaluate": {"accuracy": {"evaluator": "classification"}},
}


def right(plan, outcomes):
    base, whole = outcomes["teacher"].result, outcomes["adapted"].result[0]
    assert whole["base"]["teacher"][0]["first"] is base[0]["first"]
    assert whole["own"]["first"]["down"].shape == (8, 1)
    assert plan.stage("adapted").needs == ("teacher",)
    # It is measured with all its weights.
    found = outcomes["adapted"].values
    assert found["validation/nll"] < found["teacher:validation/nll"]


KIND = Kind(
    recipe(teacher=TEACHER, adapted=ADAPTED),
    {},
    {"teacher": "net", "adapted": "net"},
    right,
)
