"""A supernet, whose sub-nets add their gradients."""

from __future__ import annotations

from collections.abc import Sequence

from contract.recipes.parts import TAUGHT, TEACHER, Kind, recipe, series
from contract.structures import sliced

from jaxdistill.settings import Count


def slices(context, *, widths: Sequence[Count]):
    """A net and its sub-nets, the answer of each under its width."""
    return sliced(widths)


WIDEST = {"loss": "hinton_kd", "student": "out/8", "target": "teacher/out"}
SUPERNET = {
    **TAUGHT,
    "student": {"net": "slices", "widths": (8, 4, 2)},
    # The narrow ones learn from the widest, the widest from its teacher.
    "targets": {
        "kind": "merge",
        "members": {"teacher": {"stage": "teacher"}, "own": {"kind": "self"}},
    },
    "objective": {
        "kd_8": WIDEST,
        "kd_4": {"loss": "hinton_kd", "student": "out/4", "target": "own/out/8"},
        "kd_2": {"loss": "hinton_kd", "student": "out/2", "target": "own/out/8"},
    },
}


def right(plan, outcomes):
    losses = series(outcomes["supernet"], "kd_8")
    assert losses[-1] < losses[0]
    assert outcomes["supernet"].result[0]["first"].shape == (8, 8)
    first = outcomes["supernet"].metrics[0]
    assert abs(first["loss"] - sum(first[f"kd_{width}"] for width in (8, 4, 2))) < 1e-5


KIND = Kind(
    recipe(teacher=TEACHER, supernet=SUPERNET),
    {("net", "slices"): slices},
    {"teacher": "net", "supernet": "net"},
    right,
)
