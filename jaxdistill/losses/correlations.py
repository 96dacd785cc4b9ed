r"""Correlation congruence: the kernel matrices of the batch, and gaps of neighbouring rows.

As the losses of :mod:`jaxdistill.losses.relations` they couple the batch: one value, with
``where``.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import batch_rows, choice, pairs, same_features, valid_first
from jaxdistill.losses.numerics import (
    count,
    gram,
    kinked_gap,
    on_any_mesh,
    ratio,
    safe_sqrt,
)
from jaxdistill.settings import Count, Positive


@on_any_mesh
def correlation_congruence(
    student: jax.Array,
    teacher: jax.Array,
    *,
    kernel: Literal["gaussian", "bilinear"] = "gaussian",
    gamma: Positive = 0.4,
    order: Count = 2,
    squared: bool = False,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Correlation congruence (CCKD): the kernel matrices of the batch, in the Frobenius norm.

    .. math:: \frac{1}{n^2} \|K_s - K_t\|_F, \qquad K_{ij} = x_i \cdot x_j \quad\text{or}\quad
        e^{-2\gamma} \sum_{p=0}^{P} \frac{(2\gamma)^p}{p!} (x_i \cdot x_j)^p

    the second being a Gaussian kernel of normalised rows, expanded to order P. Rows are taken as
    given: normalise them outside, as the paper does.

    Args:
        student: features ``[B, ...]``.
        teacher: features ``[B, ...]`` of any width.
        kernel: ``"gaussian"`` (expanded) or ``"bilinear"``.
        gamma: of the Gaussian kernel.
        order: P.
        squared: whether the squared norm is taken, as the paper writes it; public code takes the
            norm.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: if the batches differ.

    Hard values: zero with gradient zero at equality and where nothing counts.

    Equal to:
        torchdistill ``CCKDLoss`` (``batchmean``).

    Example:
        >>> rows = jnp.eye(2)
        >>> float(correlation_congruence(2 * rows, rows, kernel="bilinear")).__round__(4)
        1.0607

    References:
        Peng et al.,
        `Correlation Congruence for Knowledge Distillation <https://arxiv.org/abs/1904.01802>`_,
        2019
    """
    student, teacher = batch_rows(student, teacher, where)

    def expanded(x):
        products, terms = gram(x), 1.0
        for power in range(1, order + 1):
            terms = terms + (2 * gamma) ** power / math.factorial(power) * products**power
        return math.exp(-2 * gamma) * terms

    matrix = choice("kernel", kernel, {"gaussian": expanded, "bilinear": gram})
    gap = jnp.where(pairs(where, student.shape[0]), kinked_gap(matrix(student), matrix(teacher)), 0)
    total = jnp.sum(jnp.square(gap))
    return ratio(total if squared else safe_sqrt(total), jnp.square(count(where, gap)))


@on_any_mesh
def neighbour_correlation(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    r"""Correlation congruence as RepDistiller has it: gaps of neighbouring rows, multiplied.

    .. math:: \frac{1}{n - 1} \sum_{i=1}^{n-1} \sum_d |s_i - t_i|_d\, |s_{i+1} - t_{i+1}|_d

    It depends on the order of the batch. The paper's kernel form is :func:`correlation_congruence`.

    Args:
        student: features ``[B, ...]``.
        teacher: features of the same shape.
        where: ``[B]``, true for the rows that count; neighbours are neighbours among these.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit.

    Hard values: zero for a batch of one, at equality and where nothing counts.

    Equal to:
        RepDistiller ``Correlation``.

    Example:
        >>> float(neighbour_correlation(jnp.array([[1.0], [2.0], [3.0]]), jnp.zeros((3, 1))))
        4.0

    References:
        Peng et al.,
        `Correlation Congruence for Knowledge Distillation <https://arxiv.org/abs/1904.01802>`_,
        2019
    """
    same_features(student, teacher)
    student, teacher = batch_rows(student, teacher, where)
    gap = jnp.abs(student - teacher)[valid_first(where, student.shape[0])]
    # Rows that do not count are zero and come last, so their products vanish.
    return ratio(jnp.sum(gap[:-1] * gap[1:]), jnp.maximum(count(where, gap) - 1, 0))
