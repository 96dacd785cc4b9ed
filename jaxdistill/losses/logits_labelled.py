"""Soft targets refined by the label: decoupled, normalised, weighted, raised and corrected.

All are called as ``loss(student, teacher, labels, *, temperature, ...)`` and return one value per
example, times the square of the temperature.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics as n
from jaxdistill.losses._entry import PER_EXAMPLE, Entry, scores
from jaxdistill.losses._hyper import Hyper
from jaxdistill.losses.logits import cross_entropy, soft_cross_entropy
from jaxdistill.settings import NonNegative, Positive, Share


def decoupled_kd(
    student: jax.Array,
    teacher: jax.Array,
    labels: jax.Array,
    *,
    temperature: Hyper[Positive] = 1.0,
    target_weight: Hyper[NonNegative] = 1.0,
    non_target_weight: Hyper[NonNegative] = 8.0,
    axis: int = -1,
) -> jax.Array:
    r"""DKD: soft targets split into «is it the label?» and «which of the others?», with a weight
    each.

    .. math::

        \tau^2 \bigl[a \, \mathrm{KL}\bigl((t_y, 1 - t_y) \,\|\, (s_y, 1 - s_y)\bigr)
        + b \, \mathrm{KL}(\hat t \,\|\, \hat s)\bigr]

    with softmax at temperature :math:`\tau`; the hatted distributions leave the label out and are
    renormalised.

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        labels: ``[...]``, integers. A label that is no class gives zero.
        temperature: :math:`\tau > 0`.
        target_weight: ``a``.
        non_target_weight: ``b``.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example, float32 or wider, times :math:`\tau^2`.

    Raises:
        ValueError: shapes that differ, or labels that do not fit.

    Computed in logarithms throughout, hence finite for saturated students (the usual code is not).
    The second term is zero for two classes, and where the teacher leaves nothing but the label.
    Equals mdistiller's ``dkd_loss`` (weights 1 and 8) and cls_KD's ``DKDLoss`` (1 and 6), as means
    over the batch.

    References:
        Zhao, Cui, Song, Qiu, Liang 2022, "Decoupled knowledge distillation" (arXiv 2203.08679).

    Example:
        >>> z = jnp.array([1.0, 2.0, 3.0])
        >>> float(decoupled_kd(z, z, jnp.array(0)))
        0.0
    """
    s, t = n.pair(student, teacher, axis)
    known, labels, s, t = n.labelled(labels, s, t)
    value = n.beside(target_weight, s[..., 0]) * n.kl(
        _label_or_not(t, labels, temperature), _label_or_not(s, labels, temperature)
    )
    others_t, some = _without_label(t, labels, temperature)
    others_s, _ = _without_label(s, labels, temperature)
    value += n.beside(non_target_weight, value) * jnp.where(some, n.kl(others_t, others_s), 0)
    return jnp.where(known, n.softened(value, temperature, t, s), 0)


def normalised_kd(
    student: jax.Array,
    teacher: jax.Array,
    labels: jax.Array,
    *,
    temperature: Hyper[Positive] = 1.0,
    non_target_weight: Hyper[NonNegative] = 1.5,
    axis: int = -1,
) -> jax.Array:
    r"""NKD: cross-entropy on the label weighted by the teacher, and on the renormalised other
    classes.

    .. math:: -t_y \log s_y - b \, \tau^2 \sum_{k \ne y} \hat t_k \log \hat s_k

    The first term is at temperature 1; the hatted distributions leave the label out and are
    renormalised at :math:`\tau`.

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        labels: ``[...]``, integers; a label that is no class gives zero. Or shares ``[..., K]``, as
            mixed images have them: the largest counts.
        temperature: :math:`\tau > 0` of the second term.
        non_target_weight: ``b``.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example, float32 or wider. A cross-entropy: positive at equality.

    Raises:
        ValueError: shapes that differ, or labels that do not fit.

    Equals the ``NKDLoss`` of cls_KD and G2SD (mean over the batch, ``non_target_weight`` is their
    ``gamma``, ``alpha``).

    References:
        Yang, Zeng, Li, Zhang, Yuan, Li 2023, "From knowledge distillation to self-knowledge
        distillation" (arXiv 2303.13005).

    Example:
        >>> z = jnp.zeros(3)
        >>> float(normalised_kd(z, z, jnp.array(0), non_target_weight=0.0))  # log(3) / 3
        0.366204
    """
    s, t = n.pair(student, teacher, axis)
    labels = jnp.argmax(labels, axis=axis) if jnp.ndim(labels) == s.ndim else labels
    known, labels, s, t = n.labelled(labels, s, t)
    value = -jnp.exp(n.pick(n.log_softmax(t), labels)) * n.pick(n.log_softmax(s), labels)
    others_t, some = _without_label(t, labels, temperature)
    others_s, _ = _without_label(s, labels, temperature)
    cross = -jnp.sum(jnp.exp(others_t) * jnp.where(jnp.isneginf(others_t), 0, others_s), axis=-1)
    weight = n.beside(non_target_weight, value) * n.beside(temperature, value) ** 2
    value += weight * jnp.where(some, cross, 0)
    return jnp.where(known, n.unless_empty(value, t, s), 0)


def weighted_soft_labels(
    student: jax.Array,
    teacher: jax.Array,
    labels: jax.Array,
    *,
    temperature: Hyper[Positive] = 1.0,
    epsilon: NonNegative = 1e-7,
    axis: int = -1,
) -> jax.Array:
    r"""WSLD: soft targets, trusted more where the student is worse than the teacher.

    .. math:: \tau^2 \, w \, \mathrm{CE}(t, s)_\tau, \qquad w = 1 - \exp(-\mathrm{CE}(y, s) /
        (\mathrm{CE}(y, t) + \epsilon))

    The weight ``w`` is a constant for the gradient.

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        labels: ``[...]``, integers. A label that is no class gives zero.
        temperature: :math:`\tau > 0` of the soft cross-entropy.
        epsilon: added to the teacher's own cross-entropy.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example, float32 or wider, times :math:`\tau^2`. A cross-entropy:
        positive at equality.

    Raises:
        ValueError: shapes that differ, or labels that do not fit.

    A teacher that rules the label out gets weight zero. Equals cls_KD's ``WSLDLoss(alpha=1)``, mean
    over the batch.

    References:
        Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang 2021, "Rethinking soft labels for knowledge
        distillation" (arXiv 2102.00650).

    Example:
        >>> z = jnp.zeros(2)
        >>> float(weighted_soft_labels(z, z, jnp.array(0)))  # (1 - 1/e) log 2
        0.43815
    """
    s, t = n.pair(student, teacher, axis)
    known, labels, s, t = n.labelled(labels, s, t)
    soft = soft_cross_entropy(s / n.beside(temperature, s), jnp.exp(n.log_softmax(t, temperature)))
    ratio = cross_entropy(s, labels) / (cross_entropy(t, labels) + epsilon)
    weight = jax.lax.stop_gradient(-jnp.expm1(-ratio))
    return jnp.where(known, n.softened(weight * soft, temperature, t, s), 0)


def one_for_all(
    student: jax.Array,
    teacher: jax.Array,
    labels: jax.Array,
    *,
    temperature: Hyper[Positive] = 1.0,
    exponent: Hyper[Positive] = 1.0,
    axis: int = -1,
) -> jax.Array:
    r"""OFA: soft targets that raise the label's share, for teachers of another architecture.

    .. math:: -\tau^2 \sum_k \bigl[(t_k + 1_{k=y})^{\gamma} - 1_{k=y}\bigr] \log s_k

    Args:
        student: logits ``[..., K]`` (classes at ``axis``), from the head of a stage or of the
            network.
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        labels: ``[...]``, integers. A label that is no class gives zero.
        temperature: :math:`\tau > 0`.
        exponent: :math:`\gamma`; 1 gives the plain soft cross-entropy.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example, float32 or wider, times :math:`\tau^2`. A cross-entropy:
        positive at equality.

    Raises:
        ValueError: shapes that differ, or labels that do not fit.

    Equals OFAKD's ``ofa_loss`` at temperature 1 (mean over the batch, ``eps`` = ``exponent``); it
    has no :math:`\tau^2`.

    References:
        Hao, Guo, Han, Tang, Hu, Wang, Xu 2023, "One-for-all: bridge the gap between heterogeneous
        architectures in knowledge distillation" (arXiv 2310.19444).

    Example:
        >>> z = jnp.zeros(2)
        >>> float(one_for_all(z, z, jnp.array(0)))
        0.693147
    """
    s, t = n.pair(student, teacher, axis)
    known, labels, s, t = n.labelled(labels, s, t)
    hot = n.is_class(labels, t).astype(t.dtype)
    power = n.beside(exponent, t)
    raised = (jnp.exp(n.log_softmax(t, temperature)) + hot) ** power
    value = soft_cross_entropy(s / n.beside(temperature, s), raised - hot)
    return jnp.where(known, n.softened(value, temperature, t, s), 0)


def minifinetuning(
    student: jax.Array,
    teacher: jax.Array,
    labels: jax.Array,
    *,
    temperature: Hyper[Positive] = 1.0,
    threshold: Hyper[Share] = 0.2,
    axis: int = -1,
) -> jax.Array:
    r"""MFT: soft targets corrected, example by example, so that the label leads by a margin.

    The teacher's softmax ``t`` becomes ``(1 - m) t + m 1_y``. Where the teacher's best class ``a``
    is not the label, ``m = (t_a - t_y + d) / (1 + t_a - t_y)``, which puts the label ``d`` above
    ``a``; where it is, ``m = min(d, 1 - t_y) / (1 - t_y)``, which raises the label by ``d`` at
    most. Then

    .. math:: \tau^2 \, \mathrm{KL}(t' \,\|\, s)

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape (the model before it is tuned); ``-inf`` rules a class
            out.
        labels: ``[...]``, integers. A label that is no class gives zero.
        temperature: :math:`\tau > 0`.
        threshold: the margin ``d`` in [0, 1].
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example, float32 or wider, times :math:`\tau^2`.

    Raises:
        ValueError: shapes that differ, or labels that do not fit.

    Finite for all finite students. The best class is piecewise constant in the teacher. Equals
    ModelOpt's ``MFTLoss`` (batch mean).

    References:
        "Minifinetuning: low-data generation domain adaptation through corrective self-distillation"
        (arXiv 2506.15702).

    Example:
        >>> certain = jnp.array([50.0, 0.0])
        >>> float(minifinetuning(certain, certain, jnp.array(0))) < 1e-6
        True
    """
    s, t = n.pair(student, teacher, axis)
    known, labels, s, t = n.labelled(labels, s, t)
    p = jnp.exp(n.log_softmax(t, temperature))
    at_best, at_label = jnp.max(p, axis=-1), n.pick(p, labels)
    margin = n.beside(threshold, at_best)
    behind = (at_best - at_label + margin) / (1 + at_best - at_label + 1e-7)
    raised = jnp.where(at_label > 1 - margin, 1, at_label + margin)
    ahead = (raised - at_best) / (1 - at_best + 1e-7)
    best = jnp.argmax(p, axis=-1).astype(labels.dtype)
    mixed = jnp.where(best == labels, ahead, behind)[..., None]
    p = (1 - mixed) * p + mixed * n.is_class(labels, p).astype(p.dtype)
    absent = p <= 0  # not of NaN
    log_p = jnp.log(jnp.where(absent, 1, p))
    log_s = jnp.where(absent, 0, n.log_softmax(s, temperature))
    value = jnp.sum(jnp.where(absent, 0, p * (log_p - log_s)), axis=-1)
    return jnp.where(known, n.softened(value, temperature, t, s), 0)


def _label_or_not(scores: jax.Array, labels: jax.Array, temperature: Any) -> jax.Array:
    """``log (p_y, 1 - p_y)``, the second one summed from the other classes: exact where ``p_y`` is
    nearly 1."""
    log_p = n.log_softmax(scores, temperature)
    rest = jax.nn.logsumexp(jnp.where(n.is_class(labels, log_p), -jnp.inf, log_p), axis=-1)
    return jnp.stack([n.pick(log_p, labels), rest], axis=-1)


def _without_label(
    scores: jax.Array, labels: jax.Array, temperature: Any
) -> tuple[jax.Array, jax.Array]:
    """The log-softmax of the other classes (``-inf`` at the label), and whether any of them is
    left."""
    others = jnp.where(n.is_class(labels, scores), -jnp.inf, scores)
    some = ~jnp.all(jnp.isneginf(others), axis=-1)
    return n.log_softmax(jnp.where(some[..., None], others, 0), temperature), some


CATALOGUE: tuple[Entry, ...] = (
    Entry(
        decoupled_kd,
        "logits",
        PER_EXAMPLE,
        "T^2 [a KL(label or not) + b KL(other classes)]",
        "T^2",
        scores(labels=True, temperature=2.0),
        paper="Zhao 2022, arXiv 2203.08679",
        equal_to=(
            ("mdistiller dkd_loss", "target_weight=alpha, non_target_weight=beta; mean"),
            ("cls_KD DKDLoss", "non_target_weight=6; mean"),
        ),
        invariances="shift of either side",
        remarks="nothing but the label left: second term 0",
        scores=True,
        zero_at_equality=True,
        shift_invariant=True,
        accepts_neginf=True,
    ),
    Entry(
        normalised_kd,
        "logits",
        PER_EXAMPLE,
        "-t_y log s_y + b T^2 CE(other classes)",
        "T^2 on the second term",
        scores(labels=True, temperature=2.0),
        paper="Yang 2023, arXiv 2303.13005",
        equal_to=(("cls_KD and G2SD NKDLoss", "non_target_weight=gamma, alpha; mean"),),
        invariances="shift of either side",
        remarks="cross-entropy: positive at equality",
        scores=True,
        shift_invariant=True,
        accepts_neginf=True,
    ),
    Entry(
        weighted_soft_labels,
        "logits",
        PER_EXAMPLE,
        "T^2 w CE(t, s), w = 1 - exp(-CE(y,s)/CE(y,t))",
        "T^2",
        scores(labels=True, temperature=2.0),
        paper="Zhou 2021, arXiv 2102.00650",
        equal_to=(("cls_KD WSLDLoss", "times alpha; mean"),),
        invariances="shift of either side",
        remarks="w is stopped; teacher rules the label out: 0",
        scores=True,
        shift_invariant=True,
        accepts_neginf=True,
        order=0,
    ),
    Entry(
        one_for_all,
        "logits",
        PER_EXAMPLE,
        "-T^2 sum_k [(t_k + 1_y)^g - 1_y] log s_k",
        "T^2",
        scores(labels=True, temperature=2.0, exponent=1.5),
        paper="Hao 2023, arXiv 2310.19444",
        equal_to=(("OFAKD ofa_loss", "exponent=eps; divided by T^2; mean"),),
        invariances="shift of either side",
        remarks="cross-entropy: positive at equality",
        scores=True,
        shift_invariant=True,
        accepts_neginf=True,
    ),
    Entry(
        minifinetuning,
        "logits",
        PER_EXAMPLE,
        "T^2 KL((1-m) t + m 1_y || s)",
        "T^2",
        scores(labels=True, temperature=2.0),
        paper="arXiv 2506.15702",
        equal_to=(("ModelOpt MFTLoss", "threshold; mean"),),
        invariances="shift of either side",
        remarks="zero where the student equals the corrected teacher",
        scores=True,
        shift_invariant=True,
        accepts_neginf=True,
    ),
)
