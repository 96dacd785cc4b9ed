"""What the loop runs: a stage, what is measured in it, and what it leaves behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from jaxdistill._errors import unknown
from jaxdistill.distiller import Distiller
from jaxdistill.settings import Count, Natural, NonNegative, fault

Evaluator = Callable[[Any, Mapping[str, Any], Iterable[Any]], Mapping[str, float]]
"""What measures a result: ``(result, frozen, batches) -> {name: value}``."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluator on one named set of records.

    Attributes:
        set: the set's name, the first part of the metrics' names: ``"validation"``, ``"test"``.
        evaluator: ``(result, frozen, data) -> {name: value}``.
        data: what it reads: batches that can be gone through again and again.
        every: after how many steps; 0 is once, at the end of the stage, and the only choice for
            ``"test"``, so that nothing can be selected by it.
        mean: whether ``mean/<name>`` is a metric too, the mean over all evaluations so far: where
            they are evenly spaced, the area under the curve.
    """

    set: str
    evaluator: Evaluator
    data: Iterable[Any] = ()
    every: int = 0
    mean: bool = False

    def __post_init__(self):
        if self.set == "test" and self.every:
            raise ValueError("the test set is evaluated once, at the end: every must be 0 for it")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A distiller, its data, its length, and what is measured and decided on the way.

    Attributes:
        name: the stage's name, for people and folders.
        distiller: the algorithm.
        data: a :class:`~jaxdistill.data.stream.Stream`, or a function from the plan to one; None
            for a distiller that takes no batches.
        steps: how many steps to do.
        frozen: the variables that the step reads and never changes, by name.
        initial: variables that only ``distiller.init`` reads, by name.
        seed: of the run's key.
        before: pairs of a name in ``frozen`` and an evaluation: teachers, measured before step one.
            Their metrics are called ``<name>:<set>/<metric>``.
        evaluations: what is measured.
        between: ``(every, fn)``: before step 0 and after every so many steps, ``fn(result, frozen,
            plan)`` on the host gives the new plan, JSON data and numpy arrays; the first plan it is
            given is None. What it holds under ``metrics`` is written with those of the steps.
        spans: parts of the run, by name, whose mean metrics are wanted besides those of all of it:
            ``(first step, step behind the last)``, counted from 0.
        log_every: after how many steps the mean metrics are written.
        checkpoint_every: after how many steps a checkpoint is written; 0 for none.
        checkpoint_minutes: after how many minutes one is written besides; 0 for none. When it is
            written changes no number.
        keep: how many of the newest checkpoints stay.
        best: ``(metric, "max" or "min")``, by which a best checkpoint is kept besides; a metric of
            the test set is refused.
        returns: ``"last"``, or ``"best"`` for the result at the best evaluation.
        identity: JSON data that says what this run is; a checkpoint of any other is refused. None
            takes what the traced functions of the distiller compute, where nothing else says it.
    """

    name: str
    distiller: Distiller
    data: Any
    steps: int
    frozen: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    initial: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    before: Sequence[tuple[str, Evaluation]] = ()
    evaluations: Sequence[Evaluation] = ()
    between: tuple[int, Callable[[Any, Mapping[str, Any], Any], Any]] | None = None
    spans: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    log_every: int = 50
    checkpoint_every: int = 0
    checkpoint_minutes: float = 5.0
    keep: int = 2
    best: tuple[str, Literal["max", "min"]] | None = None
    returns: Literal["last", "best"] = "last"
    identity: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self._check_numbers()
        self._check_selection()

    def _check_numbers(self) -> None:
        domains: dict[str, Any] = {
            "steps": Natural,
            "log_every": Count,
            "checkpoint_every": Natural,
            "keep": Count,
            "checkpoint_minutes": NonNegative,
            "spans": Mapping[str, tuple[Natural, Count]],
        }
        for key, domain in domains.items():
            if (wrong := fault(getattr(self, key), domain)) is not None:
                value = getattr(self, key)
                raise ValueError(f"{key} of stage {self.name!r} is {value!r}: it {wrong}")
        for name, (first, last) in self.spans.items():
            if not 0 <= first < last <= self.steps:
                raise ValueError(
                    f"span {name!r} of stage {self.name!r} is ({first}, {last}): wanted are two "
                    f"steps in 0..{self.steps}, the first below the second"
                )

    def _check_selection(self) -> None:
        if self.returns not in ("last", "best"):
            raise ValueError(unknown("result of a stage", self.returns, ("last", "best")))
        if self.best is None:
            if self.returns == "best":
                raise ValueError("returns='best' needs best, the metric to select by")
            return
        name, direction = self.best
        if direction not in ("max", "min"):
            raise ValueError(unknown("direction", direction, ("max", "min")))
        sets = {evaluation.set for evaluation in self.evaluations}
        if name.split("/")[0] == "test":
            raise ValueError(f"nothing is selected by the test set: best is {name!r}")
        if name.split("/")[0] not in sets:
            raise ValueError(unknown("set in the metric to select by", name.split("/")[0], sets))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a stage leaves behind.

    Attributes:
        result: what the distiller was for.
        metrics: the written lines, training and evaluation, in order.
        values: the last value of every evaluated metric, as ``<set>/<name>``, and the means of the
            step's metrics over the whole run, ``train/<name>``, and over its named parts,
            ``train/<span>/<name>``. A set called ``train`` goes before them.
        seconds: how long the run took, all its parts together.
    """

    result: Any
    metrics: list[dict[str, Any]]
    values: dict[str, float]
    seconds: float
