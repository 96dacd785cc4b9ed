"""Evaluators of a stage, with the sets they need besides the one they are called on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxdistill import evaluation
from jaxdistill._errors import unknown
from jaxdistill.data import split
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.evaluation.representations import Pool
from jaxdistill.net import Net
from jaxdistill.registry import condense, language, samplers, sentences, training
from jaxdistill.registry._names import call, named, without
from jaxdistill.registry.records import seen
from jaxdistill.training.loop import Evaluator

# Records in a batch of an evaluation that names no batch size.
BATCH = 256


def _linear_probe(
    net: Net,
    sets: split.Splits,
    seed: int,
    prepare: Any = None,
    labelled: int | None = None,
    read: str = "out",
    pool: Pool = "mean",
) -> Evaluator:
    train = _labelled(sets, labelled, seed)
    return evaluation.linear_probe(net, train, read=read, pool=pool, prepare=prepare, seed=seed)


def _nearest_neighbours(
    net: Net,
    sets: split.Splits,
    seed: int,
    prepare: Any = None,
    labelled: int | None = None,
    read: str = "out",
    pool: Pool = "mean",
    neighbours: int = 20,
    temperature: float = 0.07,
) -> Evaluator:
    train = _labelled(sets, labelled, seed)
    settings: Any = {"neighbours": neighbours, "temperature": temperature}
    return evaluation.nearest_neighbours(
        net, train, read=read, pool=pool, prepare=prepare, **settings
    )


def _class_bias(
    net: Net,
    sets: split.Splits,
    classes: Sequence[int],
    prepare: Any = None,
    read: str = "out",
) -> Evaluator:
    chosen_on = evaluation_batches(sets["validation"], BATCH)
    return evaluation.class_bias(net, chosen_on, prepare, classes=classes, read=read)


def _squared_error(
    net: Net,
    info: Mapping[str, Any],
    prepare: Any = None,
    inputs: str = "image",
    label: str = "label",
    read: str = "out",
) -> Evaluator:
    return evaluation.squared_error(
        net, info.get("classes"), prepare, inputs, label=label, read=read
    )


def _labelled(sets: split.Splits, labelled: int | None, seed: int) -> Any:
    train = sets["train"]
    if labelled is not None:
        train = split.labelled_subset(train, labelled, seed=seed)
    return evaluation_batches(train, min(BATCH, len(train)))


EVALUATORS: dict[str, Callable[..., Evaluator]] = {
    "classification": evaluation.classification,
    "class_bias": _class_bias,
    "linear_probe": _linear_probe,
    "nearest_neighbours": _nearest_neighbours,
    "cka": evaluation.cka,
    "squared_error": _squared_error,
    **condense.EVALUATORS,
    **samplers.EVALUATORS,
    **language.EVALUATORS,
    **sentences.EVALUATORS,
}
# Keys of an evaluation that are not the evaluator's own.
SHARED = ("evaluator", "sets", "every", "batch_size", "augment", "teacher", "student")


def evaluator(
    label: str,
    settings: Mapping[str, Any],
    *,
    net: Net,
    teacher: Net | None,
    teacher_name: str,
    sets: split.Splits,
    seed: int,
    nets: Mapping[str, Net] | None = None,
) -> Evaluator:
    """One entry of ``evaluate``.

    Args:
        label: its name in the config, for messages.
        settings: ``evaluator``, the ``sets`` it is called on, ``teacher`` (whether the teacher is
            measured too), ``augment`` (what is done to the images, without chance: ``resize``,
            ``normalise``), ``student`` (another net than the stage's), and the evaluator's own
            keywords.
        net: the net whose result it is called with.
        teacher: the net that it is compared with, where there is one.
        teacher_name: under which the teacher's weights are in the frozen variables.
        sets: all sets.
        seed: of the run, which chooses the labelled records.
        nets: those of earlier stages, by name.
    """
    name = named(f"evaluation {label!r}", settings, "evaluator")
    if settings.get("student"):
        net = training.net(settings["student"], sets["train"].info)
    for part in settings.get("sets") or ():
        if part not in sets:
            raise ValueError(unknown(f"set in evaluation {label!r}", part, sets))
    info = sets["train"].info
    return call(
        "evaluator",
        EVALUATORS,
        name,
        without(settings, *SHARED),
        net=net,
        teacher=teacher,
        teacher_name=teacher_name,
        sets=sets,
        seed=seed,
        nets=nets or {},
        info=info,
        **seen(settings.get("augment"), info),
    )
