r"""Kernels over a batch: the discrepancy of two clouds of features, and the alignment of two
kernels.

Each couples the batch, so it is one value, and ``where`` (``[B]``, false for padding) keeps rows
out.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import (
    batch_rows,
    choice,
    kernel_matrix,
    off_diagonal,
    pairs,
    same_features,
    square_distances,
)
from jaxdistill.losses._hyper import Hyper
from jaxdistill.losses.numerics import count, einsum, gram, on_any_mesh, ratio
from jaxdistill.settings import Count, Finite, Positive


@on_any_mesh
def mmd(
    student: jax.Array,
    teacher: jax.Array,
    *,
    kernel: Literal["rbf", "polynomial", "linear"] = "rbf",
    bandwidth: Hyper[Positive] = 1.0,
    degree: Count = 2,
    offset: Finite = 0.0,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""The squared maximum mean discrepancy between the features of student and teacher.

    .. math:: \frac{1}{n^2} \sum_{ij} k(s_i, s_j) + k(t_i, t_j) - 2 k(s_i, t_j)

    Args:
        student: features ``[B, ...]``.
        teacher: features of the same width; pairing does not matter, the distributions do.
        kernel: ``"rbf"`` (:math:`e^{-|x-y|^2 / 2 h^2}`), ``"polynomial"`` or ``"linear"``.
        bandwidth: :math:`h`.
        degree: of the polynomial.
        offset: of the polynomial.
        where: ``[B]``, true for the rows that count, on both sides.

    Returns:
        A scalar at least zero (the biased estimate), float32 or wider.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit.

    Hard values: zero at equality and where nothing counts.

    Example:
        >>> float(mmd(jnp.zeros((2, 1)), jnp.ones((2, 1)), kernel="linear"))
        1.0

    References:
        Gretton et al., `A Kernel Two-Sample Test <https://jmlr.org/papers/v13/gretton12a.html>`_,
        2012
    """
    same_features(student, teacher)
    student, teacher = batch_rows(student, teacher, where)
    counts = pairs(where, student.shape[0])

    def mean(x, y):
        values = kernel_matrix(x, y, kernel, degree=degree, offset=offset, bandwidth=bandwidth)
        return ratio(jnp.sum(jnp.where(counts, values, 0)), jnp.square(count(where, values)))

    return mean(student, student) + mean(teacher, teacher) - 2 * mean(student, teacher)


@on_any_mesh
def cka_similarity(
    student: jax.Array,
    teacher: jax.Array,
    *,
    kernel: Literal["linear", "rbf"] = "linear",
    bandwidth: Hyper[Positive] | None = None,
    estimator: Literal["biased", "debiased"] = "biased",
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Centred kernel alignment: how alike two representations of the same examples are.

    .. math:: \frac{\mathrm{HSIC}(K, L)}{\sqrt{\mathrm{HSIC}(K, K)\,\mathrm{HSIC}(L, L)}}

    with :math:`\mathrm{HSIC}(K, L) = \mathrm{tr}(K H L H)` (``"biased"``) or the unbiased
    U-statistic of Song et al. (``"debiased"``), which does not drift to 1 when there are more
    features than examples.

    Args:
        student: features ``[B, ...]``.
        teacher: features ``[B, ...]`` of any width.
        kernel: ``"linear"`` or ``"rbf"``.
        bandwidth: of the rbf kernel :math:`e^{-d^2 / 2 h^2}`; by default the root mean squared
            distance between distinct rows, of each side by itself, which makes the value invariant
            to scale.
        estimator: ``"biased"`` or ``"debiased"``; the latter needs four rows.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar, at most 1 (and at least 0 if biased), float32 or wider. Invariant to rotation and
        shift.

    Raises:
        ValueError: if the batches differ, or if a debiased estimate has fewer than four rows.

    Hard values: zero, with gradient zero, where either side does not vary (a batch of one, equal
    rows, nothing that counts).

    Example:
        >>> x = jnp.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
        >>> float(cka_similarity(x, 3 * x - 1)).__round__(4)
        1.0

    References:
        Kornblith et al., `Similarity of Neural Network Representations Revisited
        <https://arxiv.org/abs/1905.00414>`_, 2019; Song et al., `Feature Selection via Dependence
        Maximization <https://jmlr.org/papers/v13/song12a.html>`_, 2012
    """
    student, teacher = batch_rows(student, teacher, where)
    size = student.shape[0]
    debiased = choice("estimator", estimator, {"biased": False, "debiased": True})
    if debiased and size < 4:
        raise ValueError(f"the debiased estimator needs at least 4 rows, got {size}")
    number = count(where, student)
    distinct, counts = off_diagonal(where, size), pairs(where, size)

    def rbf(x):
        square = square_distances(x, x)
        if bandwidth is None:
            mean = ratio(jnp.sum(jnp.where(distinct, square, 0)), jnp.sum(distinct.astype(x.dtype)))
            return jnp.exp(-ratio(square, 2 * mean))
        return jnp.exp(-square / (2 * bandwidth**2))

    def centred(x):
        mean = ratio(jnp.sum(x, axis=0), number)
        # Centring the rows first spares the Gram matrix a difference of large numbers.
        x = jnp.where(counts.any(1)[:, None], x - mean[None, :], 0)
        k = choice("kernel", kernel, {"linear": gram, "rbf": rbf})(x)
        k = jnp.where(distinct if debiased else counts, k, 0)
        if debiased:
            return k
        means = ratio(jnp.sum(k, axis=1), number)
        k = k - means[:, None] - means[None, :] + ratio(jnp.sum(means), number)
        return jnp.where(counts, k, 0)

    def hsic(k, l):  # noqa: E741
        product = jnp.sum(k * l)
        if not debiased:
            return product
        sums_k, sums_l = jnp.sum(k, axis=1), jnp.sum(l, axis=1)
        both = einsum("i,i->", sums_k, sums_l)
        whole = jnp.sum(sums_k) * jnp.sum(sums_l)
        enough = number >= 4
        n = jnp.where(enough, number, 4)
        value = product + whole / ((n - 1) * (n - 2)) - 2 * both / (n - 2)
        return jnp.where(enough, value / (n * (n - 3)), 0)

    k, l = centred(student), centred(teacher)  # noqa: E741
    own_k, own_l = hsic(k, k), hsic(l, l)
    # What does not vary has no direction.
    tiny = jnp.finfo(k.dtype).tiny
    vary = ~((own_k <= tiny) | (own_l <= tiny))  # what is not finite is not still
    below = jnp.sqrt(jnp.where(vary, own_k, 1)) * jnp.sqrt(jnp.where(vary, own_l, 1))
    return jnp.where(vary, hsic(k, l) / below, 0)


@on_any_mesh
def cka(
    student: jax.Array,
    teacher: jax.Array,
    *,
    kernel: Literal["linear", "rbf"] = "linear",
    bandwidth: Hyper[Positive] | None = None,
    estimator: Literal["biased", "debiased"] = "biased",
    where: jax.Array | None = None,
) -> jax.Array:
    r"""One minus the centred kernel alignment: see :func:`cka_similarity`.

    .. math:: 1 - \mathrm{CKA}(s, t)

    Args:
        student: features ``[B, ...]``.
        teacher: features ``[B, ...]`` of any width.
        kernel: ``"linear"`` or ``"rbf"``.
        bandwidth: of the rbf kernel; by default the root mean squared distance between distinct
            rows.
        estimator: ``"biased"`` or ``"debiased"``.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar at least zero, float32 or wider.

    Raises:
        ValueError: if the batches differ, or if a debiased estimate has fewer than four rows.

    Hard values: one, with gradient zero, where either side does not vary; zero where nothing
    counts.

    Example:
        >>> float(cka(jnp.array([[1.0], [2.0]]), jnp.array([[5.0], [5.0]])))
        1.0

    References:
        Kornblith et al., `Similarity of Neural Network Representations Revisited
        <https://arxiv.org/abs/1905.00414>`_, 2019
    """
    similarity = cka_similarity(
        student, teacher, kernel=kernel, bandwidth=bandwidth, estimator=estimator, where=where
    )
    return 1 - similarity if where is None else jnp.where(jnp.any(where), 1 - similarity, 0)
