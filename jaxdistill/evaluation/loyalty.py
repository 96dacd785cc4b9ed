"""Loyalty: how closely a student follows its teachers, right or wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.evaluation.batches import (
    Evaluator,
    Prepare,
    Read,
    compiled,
    frozen_entry,
    run,
    sweep,
)
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.net import Net
from jaxdistill.settings import Range

KINDS = ("pearson", "spearman", "mae")
# The base of a logarithm.
Base = Annotated[float, Range(1, above=True)]


def label_loyalty(student: Any, teacher: Any) -> float:
    """The share of examples for which both predict one class: accuracy with the teacher's
    predictions as labels.

    Args:
        student: logits ``[n, K]``.
        teacher: logits ``[n, K]``.

    References:
        Xu et al. Beyond preserved accuracy: evaluating loyalty and robustness of BERT compression.
        EMNLP 2021.

    Example:
        >>> label_loyalty(np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([[3.0, 0.0], [1.0, 0.0]]))
        0.5
    """
    student, teacher = _alike(student, teacher)
    return float((student.argmax(-1) == teacher.argmax(-1)).mean())


def probability_loyalty(student: Any, teacher: Any, *, base: Base = 2.0) -> float:
    r"""The mean over examples of :math:`1 - \sqrt{\mathrm{JS}(t, s)}`.

    Args:
        student: logits ``[n, K]``; ``-inf`` is a class without mass.
        teacher: logits ``[n, K]``.
        base: of the logarithm. With 2 it lies in [0, 1]; the authors' code takes
            ``scipy.spatial.distance.jensenshannon`` as it is, whose base is e and whose least value
            is 0.167.

    References:
        Xu et al. Beyond preserved accuracy: evaluating loyalty and robustness of BERT compression.
        EMNLP 2021.

    Example:
        >>> student, teacher = np.log([[0.8, 0.1, 0.1]]), np.log([[0.75, 0.2, 0.05]])
        >>> round(1 - probability_loyalty(student, teacher, base=np.e), 6)
        0.114655
    """
    if not base > 1:
        raise ValueError(f"the base of the logarithm is above 1, not {base}")
    from scipy.special import rel_entr, softmax

    # In float64: the root would make much of what is lost to rounding.
    s, t = (softmax(x.astype(np.float64), axis=-1) for x in _alike(student, teacher))
    nats = (rel_entr(s, (s + t) / 2) + rel_entr(t, (s + t) / 2)).sum(-1) / 2
    return float(np.mean(1 - np.sqrt(np.maximum(nats, 0) / np.log(base))))


def regression_loyalty(
    student: Any, teacher: Any, *, kind: Literal["pearson", "spearman", "mae"] = "pearson"
) -> float:
    """How closely scores follow the teacher's.

    Args:
        student: scores ``[n]`` or ``[n, 1]``.
        teacher: scores of the same shape.
        kind: the correlation of values or of ranks, or the mean absolute difference.

    Returns:
        NaN for the correlation with scores that are all the same.

    References:
        Avram et al. Distilling the knowledge of Romanian BERTs using multiple teachers. LREC 2022,
        which measures it and gives no formula; the correlation over the test set is our reading.

    Example:
        >>> round(regression_loyalty(np.array([1.0, 2.0, 4.0]), np.array([0.1, 0.2, 0.4])), 6)
        1.0
    """
    if kind not in KINDS:
        raise ValueError(unknown("kind of regression loyalty", kind, KINDS))
    student, teacher = (x.astype(np.float64).reshape(-1) for x in _alike(student, teacher, 1))
    if kind == "mae":
        return float(np.abs(student - teacher).mean())
    if kind == "spearman":
        from scipy.stats import rankdata

        student, teacher = rankdata(student), rankdata(teacher)
    student, teacher = student - student.mean(), teacher - teacher.mean()
    size = np.sqrt((student**2).sum() * (teacher**2).sum())
    return float((student * teacher).sum() / size) if size else float("nan")


def loyalty(
    net: Net,
    teachers: Mapping[str, Net],
    prepare: Prepare | None = None,
    inputs: str = "image",
    *,
    scores: bool = False,
    base: Base = 2.0,
    label: str = "label",
    read: Read = "out",
) -> Evaluator:
    """Loyalty of a student to several teachers together, and to each.

    Their common output is the mean of their probabilities, or of their scores.

    Args:
        net: the student.
        teachers: the nets of the teachers, by the names of their variables in ``frozen``.
        prepare: ``(batch, key) -> batch`` before they run.
        inputs: which entry of the batch all of them see.
        scores: whether outputs are scores ``[B, 1]``; logits ``[B, K]`` otherwise.
        base: see :func:`probability_loyalty`.
        label: which entry holds the scores that are to be predicted.
        read: where the outputs are.

    Returns:
        An evaluator with ``label_loyalty`` and ``probability_loyalty``; of scores with
        ``regression_loyalty``, ``rank_loyalty``, ``absolute_gap`` (Pearson's and Spearman's
        correlations and the mean absolute difference) and ``pearson``, that with the labels. With
        several teachers the first two (three) to each of them too, as ``<teacher>_label_loyalty``.

    Raises:
        ValueError: without teachers; when it runs, for outputs of other shapes, a teacher that is
            not in ``frozen``, or a set without records.
    """
    if not teachers:
        raise ValueError("loyalty is to a teacher, or to several: there is none")

    def step(variables, batch):
        found = {
            name: run(own.apply, variables[name], batch, inputs, read)[0]
            for name, own in {"": net, **teachers}.items()
        }
        if len({x.shape for x in found.values()}) > 1:
            shapes = {name or "the student": x.shape for name, x in found.items()}
            raise ValueError(f"outputs differ in shape: {shapes}")
        return {"found": found, "where": batch["where"], "label": batch[label]}

    step = compiled(step, prepare)

    def values(student: np.ndarray, teacher: np.ndarray, before: str = "") -> dict[str, float]:
        found: dict[str, Callable[[], float]] = {
            "label_loyalty": lambda: label_loyalty(student, teacher),
            "probability_loyalty": lambda: probability_loyalty(student, teacher, base=base),
        }
        if scores:
            found = {
                "regression_loyalty": lambda: regression_loyalty(student, teacher),
                "rank_loyalty": lambda: regression_loyalty(student, teacher, kind="spearman"),
                "absolute_gap": lambda: regression_loyalty(student, teacher, kind="mae"),
            }
        return {before + name: value() for name, value in found.items()}

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        variables = {"": result, **{name: frozen_entry(frozen, name) for name in teachers}}
        seen = list(sweep(step, variables, data))
        where = np.concatenate([batch["where"] for batch in seen])
        if not where.any():
            raise ValueError("there is nothing to evaluate: every record is padding")
        out = {
            name: np.concatenate([batch["found"][name] for batch in seen])[where]
            for name in variables
        }
        each = [out[name] for name in teachers]
        found = values(out[""], np.mean(each, 0) if scores else _mixed(each))
        for name, theirs in zip(teachers, each, strict=True):
            found |= values(out[""], theirs, f"{name}_") if len(teachers) > 1 else {}
        if scores:
            labels = np.concatenate([batch["label"] for batch in seen])[where]
            found["pearson"] = regression_loyalty(out[""], labels.reshape(out[""].shape))
        return found

    own = ("label_loyalty", "probability_loyalty")
    if scores:
        own = ("regression_loyalty", "rank_loyalty", "absolute_gap")
    each = [f"{name}_{metric}" for name in teachers for metric in own if len(teachers) > 1]
    return measuring((*own, *each, *(("pearson",) if scores else ())), evaluator, sweeps=True)


def _mixed(logits: list[np.ndarray]) -> np.ndarray:
    """The logarithm of the mean probability."""
    return np.asarray(jax.nn.logsumexp(jax.nn.log_softmax(jnp.stack(logits)), 0))


def _alike(student: Any, teacher: Any, rank: int = 2) -> tuple[np.ndarray, np.ndarray]:
    student, teacher = np.asarray(student), np.asarray(teacher)
    single = student.ndim == 1 or student.shape[1:] == (1,)
    if student.shape != teacher.shape or not student.size or (not single if rank == 1 else single):
        wanted = "[n] or [n, 1]" if rank == 1 else "[n, K]"
        raise ValueError(
            f"student and teacher must both be {wanted}: they are {student.shape} and "
            f"{teacher.shape}"
        )
    return student, teacher
