"""What recipes of the contract share: a data set, a net, a teacher."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from contract.parts import IMAGES, LABELS, perceptron

from jaxdistill.data.sources import arrays
from jaxdistill.settings import Count, fault

Entries = Mapping[tuple[str, str], Callable[..., Any]]


class Kind(NamedTuple):
    """A kind of distillation as a recipe.

    Attributes:
        config: plain data.
        entries: what the tables get for it, by table and name.
        kinds: what its stages leave.
        right: ``(plan, outcomes)``, asserts what would fail if the kind were wrong.
    """

    config: dict[str, Any]
    entries: Entries
    kinds: Mapping[str, str]
    right: Callable[[Any, Any], None]


def points(context, *, count: Count = 256):
    """The records of all trials."""
    return arrays({"image": IMAGES[:count], "label": LABELS[:count]}, name="points")


def shallow(context, *, hidden: Count, outputs: Count | None = None):
    """A net of one hidden layer, with batch statistics."""
    return perceptron(hidden, outputs or context.classes)


SHARED: Entries = {("data set", "points"): points, ("net", "perceptron"): shallow}
ADAM = {"name": "adamw", "learning_rate": 1e-2}
LABELLED = {"labels": {"loss": "cross_entropy", "target": "batch/label"}}
TEACHER = {
    "student": {"net": "perceptron", "hidden": 32},
    "objective": LABELLED,
    "optimizer": ADAM,
    "batch_size": 32,
    "steps": 8,
}
# A stage that learns from it, less its net.
TAUGHT = {
    **TEACHER,
    "targets": {"stage": "teacher"},
    "objective": {"kd": {"loss": "hinton_kd"}},
    "log_every": 2,
}


def recipe(**stages: Mapping[str, Any]) -> dict[str, Any]:
    """A config of some stages on the records of all trials."""
    return {"data": {"name": "points"}, "recipe": tuple(stages), "stages": stages}


def series(outcome: Any, metric: str) -> list[float]:
    """What a metric was, line by line."""
    return [line[metric] for line in outcome.metrics if metric in line]


def refused(domain: Any) -> Any:
    """A value outside of a domain."""
    return next(value for value in (-1, "nonsense", 2.5, {"no": 1}, ()) if fault(value, domain))


def lines(function: Callable[..., Any]) -> int:
    """How long an entry is, its docstring apart."""
    source = inspect.getsource(inspect.unwrap(function))
    return len(source.splitlines()) - len((function.__doc__ or "").splitlines())
