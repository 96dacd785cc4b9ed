"""Classifiers: how often they are right, how sure they are, how closely they follow a teacher."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.evaluation.batches import (
    Apply,
    Evaluator,
    Prepare,
    Read,
    compiled,
    frozen_entry,
    run,
    summed,
    sweep,
)
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.losses.divergences import jensen_shannon
from jaxdistill.losses.logits import cross_entropy, hinton_kd
from jaxdistill.losses.probabilities import brier_score
from jaxdistill.net import Net
from jaxdistill.settings import Count


class Reliability(NamedTuple):
    """How often a classifier is right, by how sure it is: equal bins of confidence, ``[bins]``.

    Attributes:
        count: how many predictions fall into the bin ``((i - 1) / bins, i / bins]``.
        confidence: their mean probability of the predicted class; 0 in an empty bin.
        accuracy: the share of them that is right; 0 in an empty bin.
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        r"""The expected calibration error, :math:`\sum_b \tfrac{n_b}{n} |a_b - c_b|`."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.sum(self.count * gaps) / np.sum(self.count))


def classification(
    net: Net,
    teacher: Net | None = None,
    teacher_name: str = "teacher",
    prepare: Prepare | None = None,
    inputs: str = "image",
    *,
    label: str = "label",
    read: Read = "out",
    teacher_inputs: str | None = None,
    teacher_read: Read | None = None,
    top: Sequence[Count] = (1,),
    bins: Count = 15,
) -> Evaluator:
    r"""Accuracy, likelihood and calibration of a classifier, and its fidelity to a teacher.

    Every value is a mean over the examples that are not padding; integer counts are exact, and
    batches are added up in float64.

    - ``accuracy``, ``errors`` (their number), ``top<k>_accuracy`` for every k above 1
    - ``nll``, the mean of :math:`-\log p_y`, and ``entropy``, the mean of
    :math:`-\sum_k p_k \log p_k`, in nats
    - ``brier``, the mean of :math:`\sum_k (p_k - [k = y])^2` (Brier)
    - ``ece``, the expected calibration error of the predicted class over equal bins of confidence
    (Guo et al.)
    - with a teacher the same of it, as ``teacher_<name>``, and
    - ``agreement``, the share of examples for which both predict one class
    - ``kl``, the mean :math:`\mathrm{KL}(\text{teacher} \,\|\, \text{student})` in nats
    - ``loyalty``, the mean of :math:`1 - \sqrt{\mathrm{JS}_2}`, the divergence in bits (Xu et al.)

    Args:
        net: the classifier.
        teacher: the net of the teacher, if it is to be compared with one.
        teacher_name: whose weights it runs with: ``frozen[teacher_name]``.
        prepare: ``(batch, key) -> batch`` before either runs, with the same key at every
            evaluation.
        inputs: which entry of the batch the classifier sees.
        label: which entry holds the labels, ints ``[B]``.
        read: where its logits ``[B, K]`` are: a path (``"out"``, ``"out/logits"``, a tap), or a
            function of the :class:`~jaxdistill.net.Forward`.
        teacher_inputs: which entry it sees, by default the same.
        teacher_read: where its logits are, by default where the student's are.
        top: for which k the label among the k likeliest classes is counted.
        bins: of confidence.

    Raises:
        ValueError: for bad settings; when it runs, for labels that are no classes, a teacher that
            is not in ``frozen``, or a set without records.

    Example:
        >>> from jaxdistill.net import from_function
        >>> identity = from_function(
        ...     lambda key, x: ({}, {}), lambda params, state, x, train, rng: (x, {}, state)
        ... )
        >>> batch = {"image": np.log([[0.9, 0.1], [0.6, 0.4]]), "label": np.array([0, 1])}
        >>> values = classification(identity)(({}, {}), {}, [batch])
        >>> values["accuracy"], values["errors"], round(values["ece"], 3)
        (0.5, 1.0, 0.35)

    References:
        Guo et al. On Calibration of Modern Neural Networks. ICML 2017.
        Xu et al. Beyond Preserved Accuracy: Evaluating Loyalty and Robustness of BERT Compression.
        EMNLP 2021.
    """
    if bins < 1 or not top or min(top) < 1:
        raise ValueError(
            f"bins and every k of top must be at least 1, got bins={bins}, top={tuple(top)}"
        )

    step = _classifying(
        Seen(net.apply, inputs, read),
        Seen(teacher.apply, teacher_inputs or inputs, teacher_read or read) if teacher else None,
        label,
        tuple(top),
        bins,
        prepare,
    )

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        variables = {"student": result}
        if teacher is not None:
            variables["teacher"] = frozen_entry(frozen, teacher_name)
        totals = _totals(sweep(step, variables, data))
        values = _own_values(totals, top)
        if teacher is not None:
            own = {
                k.removeprefix("teacher_"): v for k, v in totals.items() if k.startswith("teacher_")
            }
            values |= {f"teacher_{name}": value for name, value in _own_values(own, top).items()}
            for name in ("agreement", "kl", "loyalty"):
                values[name] = float(totals[name] / totals["count"])
        return values

    own = ("accuracy", "errors", *(f"top{k}_accuracy" for k in top if k > 1))
    own = (*own, "nll", "brier", "ece", "entropy")
    both = (*(f"teacher_{name}" for name in own), "agreement", "kl", "loyalty")
    return measuring((*own, *both) if teacher is not None else own, evaluator, sweeps=True)


class Seen(NamedTuple):
    """A net as it is asked: what runs, the entry of the batch that it sees, what is read."""

    apply: Apply
    inputs: str
    read: Read


@functools.lru_cache(maxsize=32)
def _classifying(
    student: Seen,
    teacher: Seen | None,
    label: str,
    top: tuple[int, ...],
    bins: int,
    prepare: Prepare | None,
) -> Callable[..., Any]:
    """The compiled step of :func:`classification`: one, however many evaluators ask the same."""

    def asked(one: Seen, variables, batch):
        (logits,) = run(one.apply, variables, batch, one.inputs, one.read)
        return _own_sums(logits, batch[label], batch["where"], top, bins)

    def step(variables, batch):
        logits, sums = asked(student, variables["student"], batch)
        if teacher is None:
            return sums
        theirs, teacher_sums = asked(teacher, variables["teacher"], batch)
        bits = jnp.maximum(jensen_shannon(logits, theirs), 0) / np.log(2)
        both = {
            "agreement": logits.argmax(-1) == theirs.argmax(-1),
            "kl": hinton_kd(logits, theirs),
            "loyalty": 1 - jnp.sqrt(bits),
        }
        both = {name: _sum(values, batch["where"]) for name, values in both.items()}
        return {
            **sums,
            **{f"teacher_{name}": value for name, value in teacher_sums.items()},
            **both,
        }

    return compiled(step, prepare)


def reliability(
    net: Net,
    *,
    inputs: str = "image",
    label: str = "label",
    read: Read = "out",
    prepare: Prepare | None = None,
    bins: Count = 15,
) -> Callable[[Any, Iterable[Any]], Reliability]:
    """The bins behind the calibration error, for a reliability diagram.

    All arguments are those of :func:`classification`.

    Returns:
        A function ``(result, data) -> Reliability``.
    """

    def step(variables, batch):
        (logits,) = run(net.apply, variables, batch, inputs, read)
        return _own_sums(logits, batch[label], batch["where"], (1,), bins)[1]

    step = compiled(step, prepare)

    def measure(result: Any, data: Iterable[Any]) -> Reliability:
        return _reliability(_totals(sweep(step, result, data)))

    return measure


def _own_sums(logits, labels, where, top, bins) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The logits, checked, and sums over the examples of one batch."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits must be [B, K] and labels [B], got {logits.shape} and {labels.shape}"
        )
    classes = logits.shape[-1]
    if max(top) > classes:
        raise ValueError(f"top={tuple(top)} asks for more than the {classes} classes there are")
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    probabilities = jax.nn.softmax(logits)
    confidence = probabilities.max(-1)
    _, likeliest = jax.lax.top_k(logits, max(top))
    hits = likeliest == labels[:, None]
    # A confidence on an edge belongs to the bin below.
    edges = jnp.asarray(np.arange(1, bins) / bins, confidence.dtype)
    place = jnp.searchsorted(edges, confidence, side="left")
    in_bin = (place[:, None] == jnp.arange(bins)[None, :]) & where[:, None]
    sums = {
        "count": _sum(where, where),
        "strange": _sum((labels < 0) | (labels >= classes), where),
        "nll": _sum(cross_entropy(logits, labels), where),
        "brier": _sum(brier_score(logits, labels), where),
        "entropy": _sum(jax.scipy.special.entr(probabilities).sum(-1), where),
        "bin_count": in_bin.sum(0),
        "bin_confidence": jnp.where(in_bin, confidence[:, None], 0).sum(0),
        "bin_correct": (in_bin & hits[:, :1]).sum(0),
    }
    return logits, {**sums, **{f"top{k}": _sum(hits[:, :k].any(-1), where) for k in (1, *top)}}


def _sum(values: jax.Array, where: jax.Array) -> jax.Array:
    return jnp.where(where, values, 0).sum()


def _totals(batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    totals = summed(batches)
    if totals["strange"]:
        raise ValueError(f"{totals['strange']:.0f} labels are not classes of the net's output")
    return totals


def _own_values(totals: Mapping[str, np.ndarray], top: Sequence[int]) -> dict[str, float]:
    count = totals["count"]
    return {
        "accuracy": float(totals["top1"] / count),
        "errors": float(count - totals["top1"]),
        **{f"top{k}_accuracy": float(totals[f"top{k}"] / count) for k in top if k > 1},
        "nll": float(totals["nll"] / count),
        "brier": float(totals["brier"] / count),
        "ece": _reliability(totals).error,
        "entropy": float(totals["entropy"] / count),
    }


def _reliability(totals: Mapping[str, np.ndarray]) -> Reliability:
    count = totals["bin_count"]
    filled = np.maximum(count, 1)
    return Reliability(count, totals["bin_confidence"] / filled, totals["bin_correct"] / filled)
