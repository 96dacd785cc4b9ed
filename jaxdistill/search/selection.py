"""Which images of a pool a student should see: those that both nets are sure of, class by class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.distiller import Student, net_of
from jaxdistill.evaluation.batches import Evaluator, Prepare, compiled, frozen_entry, run, sweep
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.net import Net
from jaxdistill.settings import Range, checked, part_of

Part = Annotated[float, Range(0, 1, above=True)]


def class_selection(probabilities: np.ndarray, share: float) -> np.ndarray:
    """The surest records of every predicted class.

    Args:
        probabilities: ``[n, K]``.
        share: of the records of each class, rounded down: whole classes may stay empty, as a class
            that nothing is predicted to be has nothing to give.

    Returns:
        bool ``[n]``; of equal confidences the first are taken.

    Raises:
        ValueError: for a share that leaves nothing of any class.

    Example:
        >>> class_selection(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]]), 0.5)
        array([ True, False,  True, False])
    """
    classes, sure = probabilities.argmax(1), probabilities.max(1)
    kept = np.zeros(len(probabilities), bool)
    for label in np.unique(classes):
        own = np.flatnonzero(classes == label)
        order = own[np.argsort(-sure[own], kind="stable")]
        kept[order[: part_of(len(own), share)]] = True
    if not kept.any():
        largest = np.bincount(classes).max()
        raise ValueError(
            f"nothing is selected: share={share} of the largest class, {largest} of "
            f"{len(probabilities)} records, is less than one; raise it"
        )
    return kept


def _probabilities(net: Net, prepare: Prepare | None, inputs: str) -> Callable[..., np.ndarray]:
    """What a net says of every record of a set, in order, ``[n, K]``, compiled once."""

    def step(variables, batch):
        (logits,) = run(net.apply, variables, batch, inputs, "out")
        return jax.nn.softmax(logits.astype(np.float32)), batch["where"]

    step = compiled(step, prepare)

    def measure(result: Any, data: Iterable[Any]) -> np.ndarray:
        found, where = zip(*sweep(step, result, data), strict=True)
        return np.concatenate(found)[np.concatenate(where)]

    return measure


@checked
def joint_selection(
    student: Student,
    teacher: Net,
    against: str,
    data: Iterable[Any],
    prepare: Prepare | None = None,
    inputs: str = "image",
    *,
    share: Part = 0.5,
) -> Callable[[Any, Mapping[str, Any], Any], dict[str, Any]]:
    """The host's work between steps: the records that the mean of both nets' predictions is surest
    of, equally large a share of every predicted class.

    A teacher alone is sure of much that it has never seen. The first selection is the teacher's
    alone all the same, as the student knows nothing yet.

    Args:
        student: the net that learns, or a function of the frozen variables to it.
        teacher: its teacher.
        against: the teacher's name in the frozen variables.
        data: the whole pool as batches, in order; no label is read.
        prepare: ``(batch, key) -> batch`` before either net runs.
        inputs: which entry of the batch they see.
        share: of the records of every predicted class.

    Returns:
        ``(result, frozen, plan) -> plan``, for ``Stage.between``: ``weights``, 1 for every record
        that is drawn in the next steps and 0 for the others; ``teacher``, its probabilities, taken
        once; and ``metrics``, the share that is kept, for the log.

    Raises:
        ValueError: when it runs, for a selection that is empty.

    References:
        Tang et al., Distribution Shift Matters for Knowledge Distillation with Webly Collected
        Images, ICCV 2023.
    """
    theirs = _probabilities(teacher, prepare, inputs)

    def apply(params: Any, state: Any, seen: Any, **how: Any) -> Any:
        return net_of(student, params["frozen"]).apply(*params["own"], seen, **how)

    ours = _probabilities(Net(lambda key, seen: ({}, {}), apply), prepare, inputs)

    def between(result: Any, frozen: Mapping[str, Any], plan: Any) -> dict[str, Any]:
        first = plan is None
        told = theirs(frozen_entry(frozen, against), data) if first else plan["teacher"]
        both = told
        if not first:
            both = (told + ours(({"own": result, "frozen": frozen}, {}), data)) / 2
        kept = class_selection(both, share)
        weights = kept.astype(np.float64)
        return {"teacher": told, "weights": weights, "metrics": {"kept": float(weights.mean())}}

    return between


@checked
def selection_precision(
    net: Net,
    teacher: Net | None,
    teacher_name: str,
    groups: Sequence[str],
    prepare: Prepare | None = None,
    inputs: str = "image",
    *,
    wanted: Sequence[str],
    share: Part = 0.5,
) -> Evaluator:
    """How much of a selection is of the wanted parts of a pool: ``precision``; ``base_rate``, how
    much of the whole pool is; ``lift``, the one less the other; and ``kept``, the share selected.

    Where records are from is read here alone: to see what a selection without it has found.

    Args:
        net: the student.
        teacher: its teacher; without one nothing is measured.
        teacher_name: whose weights the teacher runs with.
        groups: the parts of the pool.
        prepare: ``(batch, key) -> batch`` before either net runs.
        inputs: which entry of the batch they see.
        wanted: the parts whose images are of the classes that the teacher knows.
        share: as for :func:`joint_selection`.

    Raises:
        ValueError: for a part that the pool does not have.
    """
    for name in wanted:
        if name not in groups:
            raise ValueError(unknown("part of the pool", name, groups))
    numbers = [list(groups).index(name) for name in wanted]
    if teacher is None:
        return measuring((), lambda result, frozen, data: {})
    both = [_probabilities(each, prepare, inputs) for each in (net, teacher)]

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        variables = (result, frozen_entry(frozen, teacher_name))
        pairs = zip(both, variables, strict=True)
        told = np.mean([measure(own, data) for measure, own in pairs], axis=0)
        rows = [(np.asarray(b["group"]), np.asarray(b.get("where", True))) for b in data]
        group = np.concatenate([g[np.broadcast_to(w, g.shape)] for g, w in rows])
        kept, right = class_selection(told, share), np.isin(group, numbers)
        precision, base = float(right[kept].mean()), float(right.mean())
        found = {"precision": precision, "base_rate": base, "lift": precision - base}
        return {**found, "kept": float(kept.mean())}

    return measuring(("precision", "base_rate", "lift", "kept"), evaluator, sweeps=True)
