"""The fused head against cached teachers: some classes per token, no teacher array over the
vocabulary."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.losses import _chunks as c
from jaxdistill.losses import numerics as n
from jaxdistill.losses._hyper import Hyper
from jaxdistill.losses.fused import cross_entropy_of_logits
from jaxdistill.losses.sparse import RULES, Missing, teacher_values
from jaxdistill.settings import Count, NonNegative, Positive

_CHUNKS = c.Chunks()


class _Options(NamedTuple):
    missing: str
    with_labels: bool


def linear_sparse_kl(
    student_hidden: jax.Array,
    student_head: jax.Array,
    ids: jax.Array,
    log_teacher: jax.Array,
    labels: jax.Array | None = None,
    *,
    missing: Missing = "tail",
    temperature: Hyper[Positive] = 1.0,
    divergence_weight: Hyper[NonNegative] = 1.0,
    ce_weight: Hyper[NonNegative] = 1.0,
    weights: jax.Array | None = None,
    student_bias: jax.Array | None = None,
    student_cap: Positive | None = None,
    vocabulary: Count | None = None,
    chunks: c.Chunks = _CHUNKS,
) -> jax.Array:
    r"""Forward divergence to the known classes of a cached teacher from hidden states, summed over
    tokens.

    .. math:: \sum_i w_i \bigl[a \, \tau^2 \, \mathrm{KL}(t_i \,\|\, \sigma(s_i/\tau)) - b \log
        \sigma(s_i)_{y_i}\bigr]

    with the rules of :func:`~jaxdistill.losses.sparse_kl` for what is missing. The gradient in the
    logits is :math:`(\sum_k t_k) \sigma(s) - t` (less the tail's share elsewhere under ``"tail"``),
    so the teacher costs ``N K`` numbers. Everything else is as in
    :func:`~jaxdistill.losses.linear_divergence`.

    Args:
        student_hidden: ``[..., H]``.
        student_head: ``[H, V]``, of the same dtype.
        ids: ``[..., K]``, integers; distinct, padding out of range.
        log_teacher: ``[..., K]``, log-probabilities; ``-inf`` is padding. A constant for the
            gradient.
        labels: ``[...]``, integers; None leaves the cross-entropy out. A label that is no class
            adds none.
        missing: ``"renormalise"``, ``"zero"``, ``"tail"`` or ``"sampled"``.
        temperature: :math:`\tau > 0`, of the divergence only; a constant for the gradient.
        divergence_weight: ``a``.
        ce_weight: ``b``, where there are labels.
        weights: ``[...]``, a mask, or what each token counts; a token of weight 0 may hold NaN.
        student_bias: ``[V]``.
        student_cap: soft cap of the student's logits; its slope is part of the gradient.
        vocabulary: how many columns are classes, where the head is padded: the others get no mass.
        chunks: how the tokens are gone over, see :class:`~jaxdistill.losses.Chunks`; heads that are
            sharded over their columns are not for it.

    Returns:
        A scalar, float32 or wider: a sum, to be divided by the sum of ``weights`` (over all
        devices).

    Raises:
        ValueError: shapes that do not fit, an unknown rule.
        NotImplementedError: on a second derivative.

    All tokens at weight 0: 0, with zero gradients. A token of padding only adds none.

    References:
        Anshumann and others 2025, "Sparse logit sampling: accelerating knowledge distillation in
        LLMs" (arXiv 2503.16870), for targets that are sampled.

    Example:
        >>> hidden, head = jnp.array([[1.0, 2.0]]), jnp.eye(2)
        >>> log_p = jax.nn.log_softmax(hidden)
        >>> float(linear_sparse_kl(hidden, head, jnp.array([[0, 1]]), log_p))
        0.0
    """
    if missing not in RULES:
        raise ValueError(unknown("rule for missing classes", missing, RULES))
    if chunks.vocabulary_axis is not None:
        raise ValueError("linear_sparse_kl takes whole heads, got a vocabulary_axis in chunks")
    student, weights, leading = c.checked(
        c.Side(student_hidden, student_head, student_bias), weights
    )
    n.same_shape(ids=ids, log_teacher=log_teacher)
    if ids.shape[:-1] != leading or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(
            f"ids must be integers of shape {(*leading, 'K')}, got {ids.dtype} {ids.shape}"
        )
    classes = student.weight.shape[1] if vocabulary is None else vocabulary
    labels = c.checked_labels(labels, leading, classes)
    plan = c.Plan(_token_loss, _Options(missing, labels is not None), student_cap, classes, chunks)
    wide, known = n.wide_dtype(student.hidden), ids.shape[-1]
    side = (
        ids.reshape(-1, known).astype(jnp.int32),
        jax.lax.stop_gradient(log_teacher.astype(wide).reshape(-1, known)),
        labels,
    )
    numbers = c.numbers(
        student.hidden,
        temperature=temperature,
        divergence_weight=divergence_weight,
        ce_weight=ce_weight,
    )
    return c.head_sum(plan, student, side, numbers, weights)


def _token_loss(plan, logits, side, numbers, with_grad):
    ids, log_teacher, labels = side
    temperature = numbers["temperature"]
    places, known, log_t, log_tail = teacher_values(
        ids, log_teacher, plan.classes, plan.options.missing, temperature
    )
    scaled = logits / temperature
    rows = jnp.arange(len(ids))[:, None]
    outside = jnp.where(known, places, logits.shape[-1])
    kept = jnp.where(known, jnp.take_along_axis(scaled, places, axis=-1), -jnp.inf)
    t = jnp.exp(log_t)
    if plan.options.missing == "renormalise":
        log_s = kept - c.class_logsumexp(plan, kept)[:, None]
        values = _cost(log_t, log_s)
        if with_grad:
            change = jnp.where(known, jnp.exp(log_s) - t, 0)
            gradient = jnp.zeros_like(scaled).at[rows, outside].add(change, mode="drop")
    else:
        normaliser = c.class_logsumexp(plan, scaled)
        values = _cost(log_t, kept - normaliser[:, None])
        tail = jnp.exp(log_tail)
        if with_grad:
            mass = jnp.sum(t, axis=-1) + tail
            gradient = mass[:, None] * jnp.exp(scaled - normaliser[:, None])
            gradient = gradient.at[rows, outside].add(-t, mode="drop")
        if plan.options.missing == "tail":
            others = scaled.at[rows, outside].set(-jnp.inf, mode="drop")
            rest = c.class_logsumexp(plan, others)
            left = ~jnp.isneginf(log_tail)
            gap = jnp.where(left, log_tail, 0) - jnp.where(left, rest - normaliser, 0)
            values = values + tail * gap
            if with_grad:
                some = jnp.where(jnp.isneginf(rest), 0, rest)
                gradient = gradient - tail[:, None] * jnp.exp(others - some[:, None])
    scale = numbers["divergence_weight"]
    values = scale * temperature**2 * values
    gradient = scale * temperature * gradient if with_grad else None
    if plan.options.with_labels:
        hard, to_logits = cross_entropy_of_logits(plan, logits, labels, with_grad)
        values = values + numbers["ce_weight"] * hard
        if with_grad:
            gradient = gradient + numbers["ce_weight"] * to_logits
    return values, gradient


def _cost(log_t, log_s):
    absent = jnp.isneginf(log_t)
    gap = jnp.where(absent, 0, log_t) - jnp.where(absent, 0, log_s)
    return jnp.sum(jnp.exp(log_t) * gap, axis=-1)
