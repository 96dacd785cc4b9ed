"""Evaluators of a stage, with the sets they need besides the one they are called on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdistill import evaluation
from jaxdistill._errors import unknown
from jaxdistill.data import split
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.registry import condense, language, nets, pools, sampled, sentences, written
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, forwarding, less, named, offered, record
from jaxdistill.registry.views import seen
from jaxdistill.settings import Count, Natural
from jaxdistill.training.loop import Evaluator

BATCH = 256
"""How many records a batch of an evaluation holds that names no batch size."""


@forwarding(evaluation.linear_probe)
def _linear_probe(
    context: Context, *, labelled: Count | None = None, most: Count | None = None, **rest: Any
) -> Evaluator:
    train = _labelled(context, labelled, most)
    return evaluation.linear_probe(
        context.net, train, context.seed, context.prepare, context.inputs, **rest
    )


@forwarding(evaluation.nearest_neighbours)
def _nearest_neighbours(
    context: Context, *, labelled: Count | None = None, most: Count | None = None, **rest: Any
) -> Evaluator:
    train = _labelled(context, labelled, most)
    return evaluation.nearest_neighbours(
        context.net, train, context.prepare, context.inputs, **rest
    )


@forwarding(evaluation.class_bias)
def _class_bias(context: Context, **rest: Any) -> Evaluator:
    chosen_on = evaluation_batches(context.sets["validation"], BATCH)
    return evaluation.class_bias(context.net, chosen_on, context.prepare, context.inputs, **rest)


@forwarding(evaluation.attention)
def _attention(context: Context, *, against: str | None = None, **rest: Any) -> Evaluator:
    teacher = context.net_of(against) if against else None
    prepare, inputs = context.prepare, context.inputs
    return evaluation.attention(context.net, teacher, against, prepare, inputs, **rest)


def _labelled(context: Context, labelled: int | None, most: int | None) -> Any:
    """The records that a probe is fitted to: so many of every class, or at most so many of all."""
    train, seed = split.known_labels(context.sets["train"]), context.seed
    if labelled is not None:
        train = split.labelled_subset(train, labelled, seed=seed)
    if most is not None and most < len(train):
        train = split.labelled_subset(train, most, seed=seed, balanced=False)
    return evaluation_batches(train, min(BATCH, len(train)))


EVALUATORS: dict[str, Entry] = {
    "classification": offered(evaluation.classification),
    "class_bias": _class_bias,
    "linear_probe": _linear_probe,
    "nearest_neighbours": _nearest_neighbours,
    "attention": _attention,
    "cka": offered(evaluation.cka),
    "class_spread": offered(evaluation.class_spread),
    "correlation": offered(evaluation.correlation),
    "squared_error": offered(evaluation.squared_error),
    **pools.EVALUATORS,
    **condense.EVALUATORS,
    **sampled.EVALUATORS,
    **language.EVALUATORS,
    **sentences.EVALUATORS,
    **written.EVALUATORS,
}


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What every entry of ``evaluate`` may say besides the evaluator's own keywords.

    Attributes:
        evaluator: which one.
        sets: the sets it is called on.
        every: after how many steps; 0 is once, at the end.
        mean: whether the mean over all evaluations is a metric too, ``mean/<name>``.
        batch_size: records in a batch.
        augment: what is done to the images, without chance: ``resize``, ``normalise``.
        teacher: whether the teacher is measured too.
        student: another net than the stage's.
    """

    evaluator: str
    sets: Sequence[str] = ("validation",)
    every: Natural = 0
    mean: bool = False
    batch_size: Count = BATCH
    augment: Sequence[Mapping[str, Any]] | None = None
    teacher: bool = True
    student: Mapping[str, Any] | None = None


SHARED = tuple(field.name for field in dataclasses.fields(Evaluated))


def evaluated(label: str, part: Mapping[str, Any], sets: Mapping[str, Any]) -> Evaluated:
    """The shared part of one entry of ``evaluate``, checked against the sets that there are.

    Raises:
        ValueError: for a value outside its domain, and for an unknown set.
    """
    named(f"evaluation {label!r}", part, "evaluator")
    shared = {key: value for key, value in part.items() if key in SHARED}
    found = record(f"evaluation {label!r}", Evaluated, shared)
    for name in found.sets:
        if name not in sets:
            raise ValueError(unknown(f"set in evaluation {label!r}", name, sets))
    return found


def evaluator(label: str, part: Mapping[str, Any], context: Context) -> Evaluator:
    """One entry of ``evaluate``.

    Args:
        label: its name in the config, for messages.
        part: see :class:`Evaluated`, and the evaluator's own keywords.
        context: what the runner offers: the net whose result it is called with, all sets, the nets
            of earlier stages, and the seed of the run, which chooses labelled records.
    """
    own = evaluated(label, part, context.sets)
    info = context.info
    changes: dict[str, Any] = seen(own.augment, info)
    if own.student:
        changes["student_net"] = nets.net(own.student, info)
    if not own.teacher:
        changes |= {"teacher": None, "teacher_name": ""}
    shared = (key for key in SHARED if key != "evaluator")
    context = dataclasses.replace(context, **changes)
    return call("evaluator", EVALUATORS, less(part, *shared), context, "evaluator")
