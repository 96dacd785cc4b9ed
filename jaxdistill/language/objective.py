"""What a language model minimises: divergences from hidden states, without logits, per token.

A teacher that runs within the step gives its hidden states (:func:`teacher_states`); one that is
read from disk its logits, or some classes of each token (:func:`jaxdistill.targets.cached`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast, get_args

import jax
import jax.numpy as jnp

from jaxdistill import losses
from jaxdistill._errors import unknown
from jaxdistill.gradients import Whole
from jaxdistill.losses.fused import DIVERGENCES as FUSED
from jaxdistill.models import head_of
from jaxdistill.net import Forward, Net
from jaxdistill.objective import Term, at, per_example
from jaxdistill.settings import Count, NonNegative, Positive, Scheduled
from jaxdistill.training.sharding import batch_axes

Name = Literal[
    "forward_kl",
    "reverse_kl",
    "jsd",
    "total_variation",
    "symmetric_kl",
    "skewed_forward_kl",
    "skewed_reverse_kl",
    "universal_logit_distillation",
]
# What becomes of classes that are not known.
Missing = Literal["tail", "renormalise", "zero", "sampled"]
# Of whole logits: what has no form that makes them piece by piece.
DENSE: dict[str, Callable[..., jax.Array]] = {
    "symmetric_kl": losses.symmetric_kl,
    "skewed_forward_kl": losses.skewed_forward_kl,
    "skewed_reverse_kl": losses.skewed_reverse_kl,
    "universal_logit_distillation": losses.universal_logit_distillation,
}
# The others of logits that are there already, as a dense cache gives them.
OF_LOGITS: dict[str, Callable[..., jax.Array]] = {
    **DENSE,
    "forward_kl": losses.forward_kl,
    "reverse_kl": losses.reverse_kl,
    "jsd": losses.generalized_jsd,
    "total_variation": losses.total_variation,
}
# The last hidden states of a decoder, in front of its head.
HIDDEN = "norm"


def is_fused(divergence: str) -> bool:
    """Whether a divergence is taken from hidden states.

    Raises:
        ValueError: for an unknown one.
    """
    if divergence not in get_args(Name):
        raise ValueError(unknown("divergence", divergence, get_args(Name)))
    return divergence in FUSED


def teacher_states(net: Net, source: str = "teacher", *, dense: bool = False) -> Callable[..., Any]:
    """Targets from a decoder that runs within the step: its hidden states and its head.

    Args:
        net: the teacher's.
        source: whose variables it runs with, a name of the frozen ones.
        dense: give its logits instead, ``[B, T, W]``, for divergences that need them.

    Returns:
        A function to ``{"hidden": [B, T, G], "head": Whole([G, V])}``, or to ``{"out": logits}``.

    Raises:
        ValueError: when there is nothing frozen of that name.
    """

    def targets(sources: Mapping, batch: Mapping, key: jax.Array, step: jax.Array):
        if source not in sources:
            raise ValueError(unknown("teacher", source, sources))
        params, state = sources[source]
        forward = net.apply(params, state, batch["teacher"], taps=() if dense else (HIDDEN,))
        if dense:
            return {"out": jax.lax.stop_gradient(forward.out)}
        found = {"hidden": forward.taps[HIDDEN], "head": Whole(head_of(params))}
        return jax.lax.stop_gradient(found)

    return targets


def divergence_per_token(
    divergence: Name = "forward_kl",
    *,
    divergence_weight: Scheduled[NonNegative] = 1.0,
    ce_weight: Scheduled[NonNegative] = 0.0,
    student_cap: Positive | None = None,
    teacher_cap: Positive | None = None,
    chunk: Count = 256,
    dense: bool = False,
    **hyper: Any,
) -> Callable[..., dict[str, Term]]:
    """The mean over the tokens that count of ``a D(teacher, student) + b CE(label)``.

    For the divergences of :func:`~jaxdistill.losses.linear_divergence` logits exist for ``chunk``
    tokens at a time; for the others they are made as a whole.

    Args:
        divergence: ``"forward_kl"``, ``"reverse_kl"``, ``"jsd"``, ``"total_variation"`` from hidden
            states; ``"symmetric_kl"``, ``"skewed_forward_kl"``, ``"skewed_reverse_kl"``,
            ``"universal_logit_distillation"`` (for vocabularies that have nothing in common).
        divergence_weight: ``a``, a number or a schedule.
        ce_weight: ``b``, likewise.
        student_cap: soft cap of the student's logits; its own for ``dense`` ones.
        teacher_cap: of the teacher's.
        chunk: tokens at a time.
        dense: take any divergence of whole logits, those of a teacher that is read from disk say.
        hyper: ``beta``, ``temperature``, ``unlike``, ``vocabulary``, ``chunks`` (by default
            ``chunk`` tokens over the axes that share the batch out, see
            :func:`~jaxdistill.training.sharding.batch_axes`), ...: keywords of the loss.

    Returns:
        An objective over ``forward.taps["norm"]`` (or ``forward.out``), the targets of
        :func:`teacher_states` and ``batch["label"]``, ``batch["counted"]`` ``[B, T]``, and
        ``batch["weight"]`` ``[B, T]`` where records have weights. Where no token counts it is zero,
        with zero gradient.

    Raises:
        ValueError: for an unknown divergence, or a keyword that it does not have.
    """
    fused = is_fused(divergence) and not dense
    loss = losses.linear_divergence if fused else OF_LOGITS[divergence]
    known = [name for name in inspect.signature(loss).parameters if name != "divergence"]
    for name in hyper:
        if name not in known:
            raise ValueError(unknown(f"key of divergence {divergence!r}", name, known))

    def terms(forward: Forward, targets: Any, batch: Any, *, step: jax.Array) -> dict[str, Term]:
        counted = worth_of(batch)
        a, b = at(divergence_weight, step), at(ce_weight, step)
        if not fused:
            found = {
                "distillation": per_example(a, loss(forward.out, targets["out"], **hyper), counted)
            }
            if _matters(ce_weight):
                hard = losses.cross_entropy(forward.out, jnp.maximum(batch["label"], 0))
                found["labels"] = per_example(b, hard, counted * (batch["label"] >= 0))
            return found
        hidden = forward.taps[HIDDEN]
        head = head_of(forward.params).astype(hidden.dtype)
        chunks = losses.Chunks(chunk, token_axis=batch_axes(len(hidden)))
        total = losses.linear_divergence(
            hidden,
            head,
            targets["hidden"],
            targets["head"].value.astype(targets["hidden"].dtype),
            batch["label"] if _matters(ce_weight) else None,
            divergence=cast(Any, divergence),
            divergence_weight=a,
            ce_weight=b,
            weights=counted,
            student_cap=student_cap,
            teacher_cap=teacher_cap,
            **{"chunks": chunks, **hyper},
        )
        return {"distillation": Term(1.0, total, counted.sum().astype(total.dtype))}

    return terms


def sparse_divergence_per_token(
    *,
    missing: Missing = "tail",
    divergence_weight: Scheduled[NonNegative] = 1.0,
    ce_weight: Scheduled[NonNegative] = 0.0,
    temperature: Positive = 1.0,
    student_cap: Positive | None = None,
    chunk: Count = 256,
) -> Callable[..., dict[str, Term]]:
    """The mean over the tokens that count of ``a KL(teacher, student) + b CE(label)``, where the
    teacher is known by some classes of each token: its most probable ones, or draws.

    Args:
        missing: what becomes of the classes that are not known, see
            :func:`~jaxdistill.losses.linear_sparse_kl`; ``"sampled"`` for draws.
        divergence_weight: ``a``, a number or a schedule.
        ce_weight: ``b``, likewise.
        temperature: of the divergence; the one that the cache was written with.
        student_cap: soft cap of the student's logits.
        chunk: tokens at a time.

    Returns:
        An objective over ``forward.taps["norm"]``, ``targets["out"]`` as a sparse codec gives it,
        ``batch["label"]`` and ``batch["counted"]``.
    """

    def terms(forward: Forward, targets: Any, batch: Any, *, step: jax.Array) -> dict[str, Term]:
        hidden, counted, known = forward.taps[HIDDEN], worth_of(batch), targets["out"]
        total = losses.linear_sparse_kl(
            hidden,
            head_of(forward.params).astype(hidden.dtype),
            known["ids"],
            known["log_probs"],
            batch["label"] if _matters(ce_weight) else None,
            missing=missing,
            temperature=temperature,
            divergence_weight=at(divergence_weight, step),
            ce_weight=at(ce_weight, step),
            weights=counted,
            student_cap=student_cap,
            chunks=losses.Chunks(chunk, token_axis=batch_axes(len(hidden))),
        )
        return {"distillation": Term(1.0, total, counted.sum().astype(total.dtype))}

    return terms


def labels_per_token(
    *, student_cap: Positive | None = None, chunk: Count = 256
) -> Callable[..., dict[str, Term]]:
    """The mean cross-entropy of the tokens that count, from hidden states, without a teacher."""

    def terms(forward: Forward, targets: Any, batch: Any) -> dict[str, Term]:
        counted, labels = worth_of(batch), batch["label"]
        hidden = forward.taps[HIDDEN]
        # A teacher that knows one token is a label.
        total = losses.linear_sparse_kl(
            hidden,
            head_of(forward.params).astype(hidden.dtype),
            labels[..., None],
            jnp.zeros((*labels.shape, 1), hidden.dtype),
            missing="zero",
            weights=counted,
            student_cap=student_cap,
            chunks=losses.Chunks(chunk, token_axis=batch_axes(len(hidden))),
        )
        return {"labels": Term(1.0, total, counted.sum().astype(total.dtype))}

    return terms


def worth_of(batch: Mapping[str, Any]) -> jax.Array:
    """What each token of a batch counts, ``[B, T]``: whether it does, times the record's weight."""
    counted = batch["counted"]
    return counted * batch["weight"] if "weight" in batch else counted


def _matters(weight: Any) -> bool:
    return callable(weight) or weight != 0
