"""What a recipe would do, before it does anything: parameters, operations and memory by stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxdistill.models import pretrained
from jaxdistill.progress import shown
from jaxdistill.recipe.planned import Plan
from jaxdistill.recipe.planning import compiled_step, shapes


class Row(NamedTuple):
    """A stage of a recipe.

    Attributes:
        stage: its name.
        does: what it is: the student's net, an algorithm, a work.
        builds_on: the earlier stages whose results it reads.
        steps: how many.
        parameters: numbers in its result; None where earlier stages say it, and so is what follows,
            also where it takes no steps.
        operations: floating-point operations of a step, as XLA counts them (loops once).
        bytes: memory of a step, its arguments and what is temporary, if one device held it all.
    """

    stage: str
    does: str
    builds_on: tuple[str, ...]
    steps: int
    parameters: int | None
    operations: float | None
    bytes: int | None


def summary(plan: Plan) -> list[Row]:
    """A row for every stage; the step of each that takes any is compiled, nothing is run."""
    results = shapes(plan)
    rows = []
    for planned in shown(plan.stages, "compile", "stages"):
        settings = planned.settings
        names = {key: settings[key] for key in ("work", "distiller") if settings[key]}
        does = next(iter(names.values()))["name"] if names else _net(settings)
        parameters = operations = held = None
        if (result := results[planned.name]) is not None:
            trained = result[0] if planned.kind == "net" else result
            parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained))
            if settings["steps"]:
                step = compiled_step(plan, planned.name)
                cost: Any = step.cost_analysis()
                memory: Any = step.memory_analysis()
                operations = float(cost["flops"])
                held = int(memory.argument_size_in_bytes + memory.temp_size_in_bytes)
        rows.append(
            Row(planned.name, does, planned.needs, settings["steps"], parameters, operations, held)
        )
    return rows


def _net(settings: Mapping[str, Any]) -> str:
    if pretrained.is_published(settings["checkpoint"]):
        return "published"
    return settings["student"]["net"]


def table(rows: Sequence[Row]) -> str:
    """The rows as text.

    Example:
        >>> print(table([Row("distil", "mlp", ("teacher",), 300, 10_500, 2.5e6, 2_000_000)]))
        stage     does  builds on  steps  parameters  operations a step  memory of a step
        distil    mlp   teacher      300       10.5k               2.5M            2.0 MB
    """
    heads = ("stage", "does", "builds on", "steps", "parameters", "operations a step",
             "memory of a step")  # fmt: skip
    cells = [
        (
            row.stage,
            row.does,
            ", ".join(row.builds_on) or "-",
            str(row.steps) if row.steps else "-",
            _short(row.parameters),
            _short(row.operations),
            "-" if row.bytes is None else f"{_short(row.bytes, ' ')}B",
        )
        for row in rows
    ]
    widths = [max(len(line[place]) for line in (heads, *cells)) for place in range(len(heads))]
    widths[0] = max(widths[0], 8)
    lines = []
    for line in (heads, *cells):
        left = (f"{cell:{width}}" for cell, width in zip(line[:3], widths[:3], strict=True))
        right = (f"{cell:>{width}}" for cell, width in zip(line[3:], widths[3:], strict=True))
        lines.append("  ".join((*left, *right)))
    return "\n".join(lines)


def _short(value: float | None, space: str = "") -> str:
    if value is None:
        return "-"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{space}{unit}"
    return f"{value:.0f}{space}"
