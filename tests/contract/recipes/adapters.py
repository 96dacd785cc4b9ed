"""Low-rank adapters, whose base is there once and teaches them."""

from __future__ import annotations

from contract.recipes.parts import LABELLED, TAUGHT, TEACHER, Kind, recipe

from jaxdistill import lora
from jaxdistill.settings import Count, Earlier


def adapted(context, *, base: Earlier, rank: Count = 1):
    """A net whose weights are those of an earlier stage and what adapters add."""
    return lora.adapted(context.net_of(base), base, at=("first", "second"), rank=rank)


ADAPTED = {
    **TAUGHT,
    "student": {"net": "adapted", "base": "teacher"},
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
    {("net", "adapted"): adapted},
    {"teacher": "net", "adapted": "net"},
    right,
)
