r"""Contrastive losses: the student's view of an example against those of all others.

Those that draw their negatives from the batch couple it: they are one value, and ``where``
(``[B]``, false for padding) keeps rows out as anchors and as negatives. Under a mesh the batch is
the global one.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import (
    batch_rows,
    choice,
    pairs,
    same_features,
)
from jaxdistill.losses._hyper import Hyper
from jaxdistill.losses.numerics import (
    beside,
    clear,
    einsum,
    l2_normalise,
    masked_mean,
    matmul,
    on_any_mesh,
    ratio,
    widen,
)
from jaxdistill.settings import NonNegative, Positive


@on_any_mesh
def info_nce(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: Hyper[Positive] = 0.1,
    negatives: jax.Array | None = None,
    normalise: bool = True,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""InfoNCE: each student vector must find its teacher's among those of the batch.

    .. math:: -\frac{1}{n} \sum_i \log
        \frac{e^{s_i \cdot t_i / \tau}}{\sum_j e^{s_i \cdot t_j / \tau}}

    Args:
        student: anchors ``[B, D]``.
        teacher: positives of the same shape; the other rows are negatives.
        temperature: :math:`\tau > 0`; may be traced (learned).
        negatives: further negatives ``[K, D]``, a queue or bank, for every anchor.
        normalise: whether rows are divided by their L2 norm first.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar, the mean over anchors, float32 or wider. ``log n`` minus it bounds the mutual
        information.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit.

    The temperature only scales the similarities; there is no factor :math:`\tau^2`.

    Hard values: zero for a batch of one without further negatives and where nothing counts; a zero
    row has cosine zero to all, with gradient zero.

    Equal to:
        MoCo v3's contrastive loss without its factor of two tau.

    Example:
        >>> rows = jnp.eye(3)
        >>> round(float(info_nce(rows, rows, temperature=1.0)), 4)
        0.5514

    References:
        van den Oord et al., `Representation Learning with Contrastive Predictive Coding
        <https://arxiv.org/abs/1807.03748>`_, 2018
    """
    student, teacher = _vectors(student, teacher, where, normalise)
    scores = matmul(student, teacher.T) / beside(temperature, student)
    extra = None
    if negatives is not None:
        if jnp.ndim(negatives) != 2 or negatives.shape[1] != student.shape[1]:
            raise ValueError(
                f"negatives must be [K, {student.shape[1]}], got {jnp.shape(negatives)}"
            )
        bank = negatives.astype(student.dtype)
        bank = l2_normalise(bank) if normalise else bank
        extra = matmul(student, bank.T) / beside(temperature, student)
    return masked_mean(_cross_entropy(scores, where, extra), where)


@on_any_mesh
def clip(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: Hyper[Positive] = 0.07,
    normalise: bool = True,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""CLIP's symmetric contrast: student to teacher and teacher to student.

    .. math:: \tfrac12 \bigl(\mathrm{InfoNCE}(s, t) + \mathrm{InfoNCE}(t, s)\bigr)

    Args:
        student: vectors ``[B, D]``.
        teacher: their partners, of the same shape.
        temperature: :math:`\tau > 0`, the inverse of CLIP's ``logit_scale``; may be traced
            (learned).
        normalise: whether rows are divided by their L2 norm first.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar, the mean over rows, float32 or wider.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit.

    The temperature only scales the similarities; there is no factor :math:`\tau^2`.

    Hard values: zero for a batch of one and where nothing counts; a zero row has cosine zero to
    all.

    Equal to:
        OpenCLIP ``ClipLoss`` over the global batch.

    Example:
        >>> round(float(clip(jnp.eye(3), jnp.eye(3), temperature=1.0)), 4)
        0.5514

    References:
        Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
        <https://arxiv.org/abs/2103.00020>`_, 2021
    """
    student, teacher = _vectors(student, teacher, where, normalise)
    scores = matmul(student, teacher.T) / beside(temperature, student)
    both = _cross_entropy(scores, where) + _cross_entropy(scores.T, where)
    return masked_mean(both, where) / 2


@on_any_mesh
def nt_xent(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: Hyper[Positive] = 0.5,
    normalise: bool = True,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""SimCLR's normalised temperature-scaled cross-entropy over the 2n vectors of both sides.

    .. math:: -\frac{1}{2n} \sum_{i=1}^{2n} \log
        \frac{e^{z_i \cdot z_{p(i)} / \tau}}{\sum_{j \ne i} e^{z_i \cdot z_j / \tau}}

    Negatives come from both sides; a vector is not its own negative.

    Args:
        student: vectors ``[B, D]``.
        teacher: their partners, of the same shape.
        temperature: :math:`\tau > 0`; may be traced.
        normalise: whether rows are divided by their L2 norm first.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar, the mean over the 2n anchors, float32 or wider.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit.

    The temperature only scales the similarities; there is no factor :math:`\tau^2`.

    Hard values: zero for a batch of one and where nothing counts; a zero row has cosine zero to
    all.

    Equal to:
        VidLanKD ``contrastive_loss_item`` times 2n (it divides twice).

    Example:
        >>> round(float(nt_xent(jnp.eye(2), jnp.eye(2), temperature=1.0)), 4)
        0.5514

    References:
        Chen et al., `A Simple Framework for Contrastive Learning of Visual Representations
        <https://arxiv.org/abs/2002.05709>`_, 2020
    """
    student, teacher = _vectors(student, teacher, where, normalise)
    size = student.shape[0]
    every = jnp.concatenate([student, teacher])
    counts = None if where is None else jnp.concatenate([where, where])
    allowed = pairs(counts, 2 * size) & ~jnp.eye(2 * size, dtype=bool)
    scores = matmul(every, every.T) / beside(temperature, every)
    partner = jnp.sum(student * teacher, axis=-1) / beside(temperature, every)
    values = _log_sum(scores, allowed) - jnp.concatenate([partner, partner])
    return masked_mean(values if counts is None else jnp.where(counts, values, 0), counts)


@on_any_mesh
def hinge_rank(
    student: jax.Array,
    teacher: jax.Array,
    *,
    margin: Hyper[NonNegative] = 1.0,
    negatives: Literal["half", "all"] = "half",
    normalise: bool = True,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""The ranking hinge: a student vector is nearer to its own teacher vector, by a margin.

    .. math:: \mathrm{mean}\, \max(0,\ m - s_i \cdot t_i + s_i \cdot t_{j})

    Args:
        student: vectors ``[B, D]``, or tokens ``[B, N, D]`` that share their example's partner.
        teacher: vectors ``[B, D]``.
        margin: m.
        negatives: ``"half"`` pairs row i with row ``i + n // 2`` (cyclically), one negative each,
            as when the batch is cut in two; ``"all"`` takes the mean over all other rows.
        normalise: whether vectors are divided by their L2 norm first.
        where: ``[B]``, or ``[B, N]`` for tokens: true for what counts. A row counts as a negative
            if any of its tokens does.

    Returns:
        A scalar, the mean over what counts (and over negatives), float32 or wider.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: zero for a batch of one, which has no negative, and where nothing counts; a zero
    vector has cosine zero to all, with gradient zero.

    Equal to:
        VidLanKD ``paired_hinge_rank_loss`` for batches of even size.

    Example:
        >>> float(hinge_rank(jnp.eye(2), jnp.eye(2), margin=1.5))
        0.5

    References:
        Tang et al., `VidLanKD <https://arxiv.org/abs/2107.02681>`_, 2021
    """
    if jnp.ndim(student) not in (2, 3) or jnp.ndim(teacher) != 2:
        raise ValueError(
            "hinge_rank needs student [B, D] or [B, N, D] and teacher [B, D], got "
            f"{jnp.shape(student)} and {jnp.shape(teacher)}"
        )
    tokens = student if jnp.ndim(student) == 3 else student[:, None, :]
    same_features(tokens[:, 0], teacher)
    tokens, teacher = widen(tokens, teacher)
    size = teacher.shape[0]
    if where is None:
        real = jnp.ones(tokens.shape[:2], bool)
    else:
        given = where if where.ndim == 2 else where[:, None]
        real = jnp.broadcast_to(given.astype(bool), tokens.shape[:2])
    rows = real.any(axis=1)
    tokens, teacher = clear(tokens, real), clear(teacher, rows)
    if normalise:
        tokens, teacher = l2_normalise(tokens), l2_normalise(teacher)
    scores = einsum("bnd,cd->bnc", tokens, teacher)
    own = einsum("bnd,bd->bn", tokens, teacher)
    other = pairs(rows, size) & ~jnp.eye(size, dtype=bool)
    if choice("kind of negatives", negatives, {"half": True, "all": False}):
        # Ranks among the rows that count: the negative of rank r has rank r + n // 2.
        number = jnp.maximum(jnp.sum(rows), 1)
        place = jnp.cumsum(rows) - 1
        other &= (place[:, None] + number // 2) % number == place[None, :]
    hinge = jnp.maximum(margin - own[..., None] + scores, 0)
    counts = real[..., None] & other[:, None, :]
    return ratio(jnp.sum(jnp.where(counts, hinge, 0)), jnp.sum(counts.astype(hinge.dtype)))


def queue_similarity(
    student: jax.Array,
    teacher: jax.Array,
    queue: jax.Array,
    *,
    temperature: Hyper[Positive] = 0.2,
    teacher_temperature: Hyper[Positive] = 0.01,
) -> jax.Array:
    r"""Whom an image resembles among others: softened similarities to a queue of teacher features.

    .. math:: -\sum_{j=0}^{K} q_j \log p_j, \qquad
        q = \sigma\bigl([t \cdot t, t \cdot d_1, \dots, t \cdot d_K] / \tau_t\bigr), \quad
        p = \sigma\bigl([s \cdot t, s \cdot d_1, \dots, s \cdot d_K] / \tau_s\bigr)

    with all vectors of length one. It does not couple the batch: what an image is compared with is
    the queue, and itself as the teacher sees it. :func:`jaxdistill.queues.similarity_queue` keeps
    the queue.

    Args:
        student: vectors ``[B, D]``, after the projector to the teacher's width.
        teacher: vectors of the same shape.
        queue: ``[K, D]``, the teacher's features of other images.
        temperature: :math:`\tau_s > 0`; may be traced.
        teacher_temperature: :math:`\tau_t > 0`; a small one leaves the nearest alone.

    Returns:
        ``[B]``, float32 or wider, least (the entropy of q) where both are equally similar to all.

    Raises:
        ValueError: if the shapes do not fit.

    Temperatures only scale the similarities; there is no factor :math:`\tau^2`.

    Hard values: a zero row has similarity zero to all, with gradient zero.

    Equal to:
        SEED with its queue before the batch enters it.

    Example:
        >>> rows = jnp.eye(2)
        >>> round(float(queue_similarity(rows[:1], rows[:1], rows[1:], temperature=1.0)[0]), 4)
        0.3133

    References:
        Fang et al., `SEED: Self-supervised Distillation for Visual Representation
        <https://arxiv.org/abs/2101.04731>`_, 2021
    """
    same_features(student, teacher)
    if jnp.ndim(student) != 2 or jnp.ndim(queue) != 2 or queue.shape[1] != student.shape[1]:
        raise ValueError(
            "queue_similarity needs student and teacher [B, D] and a queue [K, D], got "
            f"{jnp.shape(student)}, {jnp.shape(teacher)} and {jnp.shape(queue)}"
        )
    student, teacher, queue = (l2_normalise(x) for x in widen(student, teacher, queue))

    def scores(anchors, softness):
        own = jnp.sum(anchors * teacher, axis=-1, keepdims=True)
        return jnp.concatenate([own, matmul(anchors, queue.T)], axis=1) / beside(softness, anchors)

    wanted = jax.nn.softmax(scores(teacher, teacher_temperature))
    return -jnp.sum(wanted * jax.nn.log_softmax(scores(student, temperature)), axis=-1)


def _vectors(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None, normalise: bool
) -> tuple[jax.Array, jax.Array]:
    same_features(student, teacher)
    student, teacher = batch_rows(student, teacher, where)
    if normalise:
        student, teacher = l2_normalise(student), l2_normalise(teacher)
    return student, teacher


def _log_sum(scores: jax.Array, allowed: jax.Array) -> jax.Array:
    """``log sum exp`` over the allowed columns; a row with none gives zero."""
    none = ~allowed.any(axis=1, keepdims=True)
    masked = jnp.where(allowed, scores, -jnp.inf)
    return jax.nn.logsumexp(jnp.where(none, 0, masked), axis=1) - jnp.where(
        none[:, 0], jnp.log(jnp.asarray(scores.shape[1], scores.dtype)), 0
    )


def _cross_entropy(
    scores: jax.Array, where: jax.Array | None, extra: jax.Array | None = None
) -> jax.Array:
    """``[B]``: minus the log-probability of the diagonal among the columns that count."""
    allowed = pairs(where, scores.shape[0])
    own = jnp.diagonal(scores)
    if extra is not None:
        scores = jnp.concatenate([scores, extra], axis=1)
        allowed = jnp.concatenate([allowed, jnp.ones(extra.shape, bool)], axis=1)
    values = _log_sum(scores, allowed) - own
    return values if where is None else jnp.where(where.astype(bool), values, 0)
