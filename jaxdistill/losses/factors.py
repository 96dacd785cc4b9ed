"""Losses on what is made of features: factors, translations, what the teacher's head says."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import choice, maps, same_features, to_smaller_grid
from jaxdistill.losses._hyper import Hyper, OneOrMore
from jaxdistill.losses.features import feature_match
from jaxdistill.losses.numerics import (
    clear,
    count,
    kinked_gap,
    l2_normalise,
    masked_sum,
    on_any_mesh,
    same_batch,
    same_shape,
    widen,
)
from jaxdistill.settings import NonNegative, Positive


def factor_transfer(
    student: jax.Array,
    teacher: jax.Array,
    *,
    factors: Literal["given", "mean_power"] = "given",
    power: Positive = 2,
    p: Literal[1, 2] = 1,
) -> jax.Array:
    r"""Factor transfer: normalised factors of student and teacher, compared per example.

    .. math:: \frac{1}{D} \sum_d \Bigl|\frac{F_s}{|F_s|} - \frac{F_t}{|F_t|}\Bigr|_d^p

    The factors are what the translator (student) and the paraphraser (teacher) give, flattened; or,
    without such nets, the spatial maps :math:`\mathrm{mean}_c\, f^2`.

    Args:
        student: factors ``[B, ...]``; maps ``[B, H, W, C]`` for ``factors="mean_power"``.
        teacher: factors of the same shape; maps of another size and width are welcome with
            ``"mean_power"``: the larger grid is average-pooled.
        factors: ``"given"`` compares the arrays as they are; ``"mean_power"`` first takes the
            channel mean of ``f ** power``.
        power: of ``"mean_power"``.
        p: of the distance, 1 or 2.

    Returns:
        ``[B]``, the mean over elements of each example, float32 or wider.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: a zero example stays zero, with gradient zero (the public code gives NaN); zero at
    equality.

    Equal to:
        torchdistill ``FTLoss`` (p = 1) with ``factors="given"``; RepDistiller ``FactorTransfer``
        with ``factors="mean_power"``.

    Example:
        >>> factor_transfer(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 3.0]])).tolist()
        [1.0]

    References:
        Kim et al., `Paraphrasing Complex Network: Network Compression via Factor Transfer
        <https://arxiv.org/abs/1802.04977>`_, 2018
    """
    if choice("kind of factors", factors, {"given": False, "mean_power": True}):
        student, teacher = widen(maps(student, "student"), maps(teacher, "teacher"))
        same_batch(student=student, teacher=teacher)
        student, teacher = to_smaller_grid(student, teacher)
        student, teacher = (jnp.mean(x**power, axis=-1) for x in (student, teacher))
    distance = choice("p", str(float(p)), {"1.0": "l1", "2.0": "l2"})
    every = tuple(range(1, jnp.ndim(student)))
    return feature_match(student, teacher, normalise="l2", distance=distance, axis=every)


def kta(student: jax.Array, teacher: jax.Array, *, p: Positive = 1, q: Positive = 2) -> jax.Array:
    r"""Knowledge translation and adaptation: q-normalised features, compared in the p-norm.

    .. math:: p = 1:\ \frac{1}{D}\Bigl|\tfrac{s}{|s|_q} - \tfrac{t}{|t|_q}\Bigr|_1, \qquad
        p \ne 1:\ \Bigl|\tfrac{s}{|s|_q} - \tfrac{t}{|t|_q}\Bigr|_p

    Args:
        student: adapted features ``[B, ...]``.
        teacher: translated features of the same shape.
        p: of the distance; 1 is a mean, any other a norm, as in the public code.
        q: of the normalisation.

    Returns:
        ``[B]``, float32 or wider.

    Raises:
        ValueError: if the shapes differ.

    Hard values: a zero example stays zero, with gradient zero; zero with gradient zero at equality.

    Equal to:
        torchdistill ``KTALoss``, and ``FTLoss`` with q = 2.

    Example:
        >>> kta(jnp.array([[1.0, 1.0]]), jnp.array([[1.0, 0.0]]), p=1, q=1).tolist()
        [0.5]

    References:
        He et al., `Knowledge Adaptation for Efficient Semantic Segmentation
        <https://arxiv.org/abs/1903.04688>`_, 2019
    """
    same_features(student, teacher)
    student, teacher = widen(student, teacher)
    every = tuple(range(1, student.ndim))

    def norm(x, power, keepdims=False):
        if power == 2:
            total = jnp.sum(jnp.square(x), axis=every, keepdims=keepdims)
        else:
            total = jnp.sum(jnp.abs(x) ** power, axis=every, keepdims=keepdims)
        none = total == 0
        return jnp.where(none, 0, jnp.where(none, 1, total) ** (1 / power))

    def unit(x):
        if q == 2:
            return l2_normalise(x, every)
        size = norm(x, q, keepdims=True)
        return jnp.where(size == 0, 0, x / jnp.where(size == 0, 1, size))

    gap = kinked_gap(unit(student), unit(teacher))
    return jnp.mean(jnp.abs(gap), axis=every) if p == 1 else norm(gap, p)


def srrl(
    student: tuple[jax.Array, jax.Array],
    teacher: tuple[jax.Array, jax.Array],
    *,
    feature_weight: Hyper[NonNegative] = 1.0,
    logit_weight: Hyper[NonNegative] = 5.0,
) -> jax.Array:
    r"""Softmax regression: the student's features must serve the teacher's classifier.

    .. math:: a \cdot \frac{1}{C} |\bar f_s - \bar f_t|^2 + b \cdot \frac{1}{K} |h_t(f_s) - z_t|^2

    where :math:`\bar f` is the spatial mean, :math:`h_t` the teacher's frozen head and :math:`z_t`
    its logits.

    Args:
        student: features ``[B, ..., C]`` after the connector, and the teacher's head applied to
            them, ``[B, K]``.
        teacher: features of the same width and the teacher's logits ``[B, K]``; the grids may
            differ.
        feature_weight: :math:`a`.
        logit_weight: :math:`b`.

    Returns:
        ``[B]``, float32 or wider.

    Raises:
        ValueError: if batch, width or classes differ.

    Hard values: none; zero where both pairs are equal.

    Equal to:
        cls_KD ``SRRLLoss``.

    Example:
        >>> pair = jnp.ones((1, 2, 2, 3)), jnp.zeros((1, 4))
        >>> srrl(pair, (jnp.zeros((1, 3)), jnp.ones((1, 4)))).tolist()
        [6.0]

    References:
        Yang et al., `Knowledge Distillation via Softmax Regression Representation Learning
        <https://openreview.net/forum?id=ZzwDy_wiWv>`_, 2021
    """
    features, scores = widen(*student)
    wanted, logits = widen(*teacher)
    pooled, target = (
        jnp.mean(x, axis=tuple(range(1, x.ndim - 1))) if x.ndim > 2 else x
        for x in (features, wanted)
    )
    same_features(pooled, target)
    same_shape(student_scores=scores, teacher_scores=logits)
    matched = jnp.mean(jnp.square(pooled - target), axis=-1)
    return feature_weight * matched + logit_weight * jnp.mean(jnp.square(scores - logits), axis=-1)


@on_any_mesh
def srd(
    student: jax.Array,
    teacher: jax.Array,
    *,
    exponent: OneOrMore = 4.0,
    epsilon: NonNegative = 1e-12,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""The log-sum distance of the simple recipe: large gaps do not drown the others.

    .. math:: 2 \log\Bigl(\epsilon + \sum_{b,d} |s_{bd} - t_{bd}|^a\Bigr)

    Its logarithm couples the batch, so it is one value. Both sides are batch-normalised without
    scale and bias in the paper, outside the loss; the softened KL that the recipe adds is a term of
    its own.

    Args:
        student: features ``[B, ...]``.
        teacher: features of the same shape.
        exponent: :math:`a \ge 1`.
        epsilon: keeps the logarithm finite at equality.
        where: ``[B]``, false for examples that do not count.

    Returns:
        A scalar, float32 or wider; unbounded below, and least at equality.

    Raises:
        ValueError: if the shapes differ.

    Hard values: :math:`2 \log \epsilon` with gradient zero where student and teacher are equal (the
    public code gives ``-inf`` and NaN); zero where nothing counts.

    Equal to:
        torchdistill ``SRDLoss`` without its KL (up to ``epsilon``).

    Example:
        >>> round(float(srd(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]]))), 4)
        1.3863

    References:
        Miles and Mikolajczyk, `Understanding the Role of the Projector in Knowledge Distillation
        <https://arxiv.org/abs/2303.11098>`_, 2024
    """
    same_features(student, teacher)
    student, teacher = widen(student, teacher)
    gap = jnp.abs(clear(student, where) - clear(teacher, where))
    # A gap of zero is kept away from the power: its derivative there is zero for every exponent
    # above one.
    still = gap == 0
    powers = jnp.where(still, 0, jnp.where(still, 1, gap) ** exponent)
    value = 2 * jnp.log(epsilon + masked_sum(powers, where))
    return jnp.where(count(where, student) == 0, 0, value)
