r"""Self-supervision as an auxiliary task of distillation (SSKD).

The batch holds every image in several views, one after another: the image itself, then its ``views
- 1`` transformed copies. Each copy must be nearer to its own image than to the others; how the
teacher's features see that, mistakes included, is what the student learns.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import pairs
from jaxdistill.losses._hyper import Hyper, Views
from jaxdistill.losses.numerics import (
    einsum,
    given_labels,
    is_class,
    kl,
    l2_normalise,
    log_softmax,
    masked_mean,
    odd_scores,
    on_any_mesh,
    pick,
    same_batch,
    same_shape,
    widen,
)
from jaxdistill.settings import Positive, Share


@on_any_mesh
def sskd_pretext(
    features: jax.Array, *, views: Views = 4, where: jax.Array | None = None
) -> jax.Array:
    r"""The pretext task: every transformed copy must find its image, by cosine.

    .. math:: -\frac{1}{m} \sum_a \log \frac{e^{\cos(a, x_{(a)})}}{\sum_i e^{\cos(a, x_i)}}

    over the m copies that count. It trains the teacher's auxiliary head in the first stage.

    Args:
        features: ``[n * views, D]``, the views of an image side by side, the image itself first.
        views: per image.
        where: ``[n * views]``, true for the rows that count; an image counts if all its views do.

    Returns:
        A scalar, the mean over copies, float32 or wider.

    Raises:
        ValueError: if the batch is no multiple of ``views``.

    Hard values: zero for one image and where nothing counts; a zero row has cosine zero to all.

    Equal to:
        torchdistill ``AuxSSKDLoss``.

    Example:
        >>> round(float(sskd_pretext(jnp.repeat(jnp.eye(2), 4, axis=0))), 4)
        0.3133

    References:
        Xu et al.,
        `Knowledge Distillation Meets Self-Supervision <https://arxiv.org/abs/2006.07114>`_, 2020
    """
    (features,) = widen(features)
    scores, counts = _similarities(features, views, where)
    values = -pick(jax.nn.log_softmax(scores, axis=-1), _own(scores, views))
    return masked_mean(jnp.where(counts, values, 0), counts)


@on_any_mesh
def sskd_similarity(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: Hyper[Positive] = 0.5,
    keep_wrong: Share = 0.75,
    views: Views = 4,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""How copies resemble images, transferred: the softened similarities of student and teacher.

    .. math:: \frac{\tau^2}{|\mathcal K|} \sum_{a \in \mathcal K} \mathrm{KL}\bigl(
        \sigma(\cos_t(a, \cdot)/\tau) \,\|\, \sigma(\cos_s(a, \cdot)/\tau)\bigr)

    over the copies :math:`\mathcal K` that the teacher gets right and, of those that it gets wrong,
    the share with the smallest mistakes (the right image ranks highest).

    Args:
        student: features ``[n * views, D_s]``, the views of an image side by side, the image itself
            first.
        teacher: features ``[n * views, D_t]``.
        temperature: :math:`\tau`.
        keep_wrong: the share of the teacher's mistakes that are kept, rounded down.
        views: per image.
        where: ``[n * views]``, true for the rows that count; an image counts if all its views do.

    Returns:
        A scalar, the mean over kept copies times :math:`\tau^2`, float32 or wider. The choice has
        no gradient.

    Raises:
        ValueError: if the batches differ or are no multiple of ``views``.

    Hard values: zero for one image, where nothing counts, and at equality.

    Equal to:
        the self-supervised part of torchdistill ``SSKDLoss`` (``ss_temp``, ``ss_ratio``).

    Example:
        >>> rows = jax.random.normal(jax.random.key(0), (8, 3))
        >>> float(sskd_similarity(rows, rows))
        0.0

    References:
        Xu et al.,
        `Knowledge Distillation Meets Self-Supervision <https://arxiv.org/abs/2006.07114>`_, 2020
    """
    same_batch(student=student, teacher=teacher)
    student, teacher = widen(student, teacher)
    ours, counts = _similarities(student, views, where)
    theirs, _ = _similarities(teacher, views, where)
    kept = _trusted(theirs, _own(theirs, views), counts, keep_wrong)
    return _softened(ours, theirs, temperature, kept, counts)


@on_any_mesh
def sskd_transformed(
    student: jax.Array,
    teacher: jax.Array,
    labels: jax.Array,
    *,
    temperature: Hyper[Positive] = 4.0,
    keep_wrong: Share = 1.0,
    views: Views = 4,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Softened predictions for the transformed copies, where the teacher is not too wrong.

    .. math:: \frac{\tau^2}{|\mathcal K|} \sum_{a \in \mathcal K} \mathrm{KL}\bigl(
        \sigma(t_a/\tau) \,\|\, \sigma(s_a/\tau)\bigr)

    over the copies :math:`\mathcal K` that the teacher classifies rightly and the share of its
    smallest mistakes.

    Args:
        student: logits ``[n * views, K]``, the views of an image side by side, the image itself
            first.
        teacher: logits of the same shape.
        labels: ``[n]``, one per image, integers. An image whose label is no class does not count.
        temperature: :math:`\tau`.
        keep_wrong: the share of the teacher's mistakes that are kept, rounded down.
        views: per image.
        where: ``[n * views]``, true for the rows that count; an image counts if all its views do.

    Returns:
        A scalar, the mean over kept copies times :math:`\tau^2`, float32 or wider. The choice has
        no gradient.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: zero where nothing counts and at equality.

    Equal to:
        the transformed part of torchdistill ``SSKDLoss`` (``tf_temp``, ``tf_ratio``).

    Example:
        >>> logits = jax.random.normal(jax.random.key(0), (8, 3))
        >>> float(sskd_transformed(logits, logits, jnp.array([0, 2])))
        0.0

    References:
        Xu et al.,
        `Knowledge Distillation Meets Self-Supervision <https://arxiv.org/abs/2006.07114>`_, 2020
    """
    same_shape(student=student, teacher=teacher)
    student, teacher = widen(student, teacher)
    if jnp.ndim(labels) == 1 and student.shape[:1] == (labels.shape[0] * views,):
        known = jnp.repeat((labels >= 0) & (labels < student.shape[-1]), views)
        where = known if where is None else known & where.astype(bool)
    images, counts = _grouped(student, views, where)
    if labels.shape != (images.shape[0],):
        raise ValueError(f"labels must be one per image, ({images.shape[0]},), got {labels.shape}")
    given_labels(labels, student.shape[-1])
    ours = images[:, 1:].reshape(-1, images.shape[-1])
    taught, _ = _grouped(teacher, views, where)
    theirs = taught[:, 1:].reshape(ours.shape)
    counts = jnp.repeat(counts, views - 1)
    kept = _trusted(theirs, jnp.repeat(labels, views - 1), counts, keep_wrong)
    value = _softened(ours, theirs, temperature, kept, counts)
    # All that is read of the images themselves is whether they are numbers.
    odd = odd_scores(images[:, 0]) | odd_scores(taught[:, 0])
    return jnp.where(odd.any(), jnp.nan, value)


def _grouped(x: jax.Array, views: int, where: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """``[n, views, D]`` with zeros where an image does not count, and ``[n]``, whether it does."""
    if x.ndim != 2 or x.shape[0] % views or views < 2:
        raise ValueError(
            f"features must be [n * {views}, D] with at least two views, got {x.shape}"
        )
    x = x.reshape(-1, views, x.shape[-1])
    if where is None:
        return x, jnp.ones(x.shape[:1], bool)
    if where.shape != (x.shape[0] * views,):
        raise ValueError(f"where must be ({x.shape[0] * views},), got {where.shape}")
    counts = where.astype(bool).reshape(-1, views).all(axis=1)
    return jnp.where(counts[:, None, None], x, 0), counts


def _similarities(x: jax.Array, views: int, where: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Cosines ``[copies, n]``, ``-inf`` for images that do not count, and which copies do."""
    x, counts = _grouped(x, views, where)
    x = l2_normalise(x)
    cosines = einsum("nvd,md->nvm", x[:, 1:], x[:, 0])
    both = pairs(counts, counts.shape[0])[:, None, :]
    # Rows that do not count stay finite; they are dropped from every mean.
    hidden = jnp.where(counts[:, None, None], jnp.where(both, cosines, -jnp.inf), 0)
    return hidden.reshape(-1, cosines.shape[-1]), jnp.repeat(counts, views - 1)


def _own(scores: jax.Array, views: int) -> jax.Array:
    return jnp.arange(scores.shape[0], dtype=jnp.int32) // (views - 1)


def _trusted(scores: jax.Array, labels: jax.Array, counts: jax.Array, share: float) -> jax.Array:
    """The rows whose label ranks first, and the given share of the others, the best ranks first."""
    truth = is_class(labels, scores)
    value = pick(jax.lax.stop_gradient(scores), labels)[:, None]
    above = (scores > value) | (
        (scores == value)
        & (jnp.arange(scores.shape[1], dtype=labels.dtype)[None, :] < labels[:, None])
    )
    rank = jnp.where(counts, jnp.sum(above & ~truth, axis=1), scores.shape[1] + 1)
    wrong = jnp.sum(counts & (rank > 0))
    # One part in a million of slack: 0.9 of ten is nine, whatever the floats say.
    kept_wrong = jnp.floor(wrong.astype(scores.dtype) * share + 1e-6).astype(rank.dtype)
    limit = jnp.sum(counts & (rank == 0)) + kept_wrong
    place = jnp.argsort(jnp.argsort(rank, stable=True), stable=True)
    return counts & (place < limit)


def _softened(
    student: jax.Array, teacher: jax.Array, temperature: Any, kept: jax.Array, counts: jax.Array
) -> jax.Array:
    values = kl(log_softmax(teacher, temperature), log_softmax(student, temperature))
    kept |= counts & ~jnp.isfinite(values)  # what is not finite is never left out
    mean = masked_mean(jnp.where(kept, values, 0), kept)
    return jnp.square(jnp.asarray(temperature, mean.dtype)) * mean
