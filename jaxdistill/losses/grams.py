r"""Losses on the Gram matrices within an example: between channels, between positions, between two
layers.

Each gives one value per example, ``[B]``. ``mask`` (``[B, N]``) marks the real tokens of a
sequence.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import (
    choice,
    frobenius,
    kernel_matrix,
    same_features,
    to_smaller_grid,
)
from jaxdistill.losses._hyper import Hyper
from jaxdistill.losses.numerics import (
    einsum,
    gram,
    kinked_gap,
    l2_normalise,
    ratio,
    safe_sqrt,
    same_batch,
    widen,
)
from jaxdistill.settings import Count, Finite, Positive

Pair = tuple[jax.Array, jax.Array]


def ickd(student: jax.Array, teacher: jax.Array) -> jax.Array:
    r"""Inter-channel correlation: the Gram matrix between channels, its rows of length one.

    .. math:: \frac{1}{C} \bigl\| r(F_s F_s^\top) - r(F_t F_t^\top) \bigr\|_F^2,
        \qquad F \in R^{C \times HW}

    Args:
        student: features ``[B, ..., C]``, after the connector; the grid may be another than the
            teacher's.
        teacher: features of the same width.

    Returns:
        ``[B]``, float32 or wider.

    Raises:
        ValueError: if batch or width differ.

    Hard values: a channel of zeros has correlation zero, with gradient zero; zero at equality.

    Equal to:
        torchdistill ``ChSimLoss``, which divides once more by the batch size (weight ``1 / B``).

    Example:
        >>> flat = jnp.ones((1, 2, 2, 2))
        >>> stripes = jnp.array([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 1, 2, 2)
        >>> ickd(flat, stripes).round(4).tolist()
        [0.5858]

    References:
        Liu et al.,
        `Exploring Inter-Channel Correlation for Diversity-Preserved Knowledge Distillation
        <https://arxiv.org/abs/2202.03680>`_, 2021
    """
    student, teacher = (_channels(x) for x in _wide(student, teacher))
    same_features(student[:, :, :1], teacher[:, :, :1], axis=1)
    gap = l2_normalise(gram(student)) - l2_normalise(gram(teacher))
    return jnp.mean(jnp.sum(jnp.square(gap), axis=2), axis=1)


def affinity(student: jax.Array, teacher: jax.Array) -> jax.Array:
    r"""Affinity distillation: for every channel, which positions are alike.

    .. math:: \sum_c \frac{1}{HW} \bigl\| \hat s_c \hat s_c^\top - \hat t_c \hat t_c^\top \bigr\|_F

    with :math:`\hat s_c` the map of a channel over its L2 norm. The ``HW x HW`` matrices are never
    built: the norm follows from the sum and the difference of the two vectors.

    Args:
        student: features ``[B, ..., C]``.
        teacher: features of the same shape.

    Returns:
        ``[B]``, float32 or wider; blind to the sign of a map.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit.

    Hard values: a channel of zeros stays zero, with gradient zero (the public code gives NaN); zero
    with gradient zero at equality.

    Equal to:
        torchdistill ``AffinityLoss``.

    Example:
        >>> affinity(jnp.array([[[1.0], [0.0]]]), jnp.array([[[0.0], [1.0]]])).round(4).tolist()
        [0.7071]

    References:
        He et al., `Knowledge Adaptation for Efficient Semantic Segmentation
        <https://arxiv.org/abs/1903.04688>`_, 2019
    """
    same_features(student, teacher)
    student, teacher = (l2_normalise(_channels(x)) for x in _wide(student, teacher))
    more, less = student + teacher, kinked_gap(student, teacher)
    sizes = jnp.sum(jnp.square(more), -1) * jnp.sum(jnp.square(less), -1)
    square = (sizes + jnp.square(jnp.sum(more * less, axis=-1))) / 2
    return jnp.sum(safe_sqrt(square), axis=-1) / student.shape[-1]


def nst(
    student: jax.Array,
    teacher: jax.Array,
    *,
    kernel: Literal["polynomial", "linear", "rbf"] = "polynomial",
    degree: Count = 2,
    offset: Finite = 0.0,
    bandwidth: Hyper[Positive] = 1.0,
) -> jax.Array:
    r"""Neuron selectivity transfer: the discrepancy between two clouds of channels.

    .. math:: \frac{1}{C_s^2} \sum k(\hat s_c, \hat s_{c'})
        + \frac{1}{C_t^2} \sum k(\hat t_c, \hat t_{c'})
        - \frac{2}{C_s C_t} \sum k(\hat s_c, \hat t_{c'})

    with :math:`\hat s_c` the map of a channel over its L2 norm and
    :math:`k(x, y) = (x \cdot y + o)^p`.

    Args:
        student: maps ``[B, H, W, C_s]``, or hidden states ``[B, N, C_s]``.
        teacher: the same kind, any width; the larger grid of maps is average-pooled.
        kernel: ``"polynomial"``, ``"linear"`` or ``"rbf"``.
        degree: p.
        offset: o.
        bandwidth: of the rbf kernel.

    Returns:
        ``[B]``, float32 or wider, at least zero.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: a channel of zeros stays zero, with gradient zero; zero at equality.

    Equal to:
        mdistiller ``nst_loss`` and RepDistiller ``NSTLoss`` (mean over the batch, summed over
        stages). VidLanKD's takes tokens for channels, so both axes are swapped to get it, and
        leaves the teacher's own term out, a constant.

    Example:
        >>> nst(jnp.ones((1, 2, 2, 3)), jnp.ones((1, 4, 4, 5))).tolist()
        [0.0]

    References:
        Huang and Wang, `Like What You Like: Knowledge Distill via Neuron Selectivity Transfer
        <https://arxiv.org/abs/1707.01219>`_, 2017
    """
    student, teacher = _wide(student, teacher)
    if student.ndim == 4 and teacher.ndim == 4:
        student, teacher = to_smaller_grid(student, teacher)
    student, teacher = (l2_normalise(_channels(x)) for x in (student, teacher))
    if student.shape[-1] != teacher.shape[-1]:
        raise ValueError(
            "student and teacher need as many positions, got "
            f"{student.shape[-1]} and {teacher.shape[-1]}"
        )

    def mean(x, y):
        k = kernel_matrix(x, y, kernel, degree=degree, offset=offset, bandwidth=bandwidth)
        return jnp.mean(k, axis=(1, 2))

    return mean(student, student) + mean(teacher, teacher) - 2 * mean(student, teacher)


def fsp_matrix(
    first: jax.Array,
    second: jax.Array,
    *,
    pooling: Literal["average", "max"] = "average",
    mask: jax.Array | None = None,
) -> jax.Array:
    r"""The flow of a solution procedure: products of two layers' channels, over positions.

    .. math:: G = \frac{1}{HW} \sum_{p} f_p\, g_p^\top

    Args:
        first: maps ``[B, H, W, C_1]``, or hidden states ``[B, N, C_1]``.
        second: the same kind, ``C_2`` channels; the larger grid of maps is pooled.
        pooling: ``"average"`` or ``"max"``.
        mask: ``[B, N]`` for hidden states.

    Returns:
        ``[B, C_1, C_2]`` at the highest precision, float32 or wider.

    Example:
        >>> fsp_matrix(jnp.ones((1, 4, 4, 1)), jnp.full((1, 2, 2, 2), 3.0)).tolist()
        [[[3.0, 3.0]]]
    """
    first, second = _wide(first, second)
    if first.ndim == 4 and second.ndim == 4:
        first, second = to_smaller_grid(first, second, pooling)
    first, second = (_channels(x) for x in (first, second))
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(
            f"the two layers need as many positions, got {first.shape[-1]} and {second.shape[-1]}"
        )
    if mask is None:
        return einsum("bcp,bdp->bcd", first, second) / first.shape[-1]
    keep = _tokens(mask, first)
    first, second = (jnp.where(keep[:, None, :], x, 0) for x in (first, second))
    number = jnp.sum(keep, axis=1).astype(first.dtype)
    return ratio(einsum("bcp,bdp->bcd", first, second), number[:, None, None])


def fsp(
    student: Pair,
    teacher: Pair,
    *,
    form: Literal["mean_square", "column_norm"] = "mean_square",
    pooling: Literal["average", "max"] = "average",
    mask: jax.Array | None = None,
) -> jax.Array:
    r"""The flow of solution procedure between two layers of the student, against the teacher's.

    .. math:: \frac{1}{C_1 C_2} \|G_s - G_t\|_F^2
        \qquad\text{or}\qquad \sum_{d} \bigl|(G_s - G_t)_{\cdot d}\bigr|_2

    Args:
        student: two layers, maps ``[B, H, W, C]`` or hidden states ``[B, N, C]``, see
            :func:`fsp_matrix`.
        teacher: two layers of the same widths.
        form: ``"mean_square"``, or ``"column_norm"``, the sum of the columns' norms.
        pooling: ``"average"`` or ``"max"``, where two layers differ in size.
        mask: ``[B, N]`` for hidden states.

    Returns:
        ``[B]``, float32 or wider.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: zero, with gradient zero, at equality and where all is masked.

    Equal to:
        RepDistiller ``FSP`` (summed over neighbouring stages) and TextBrewer ``fsp_loss`` as it
        is; torchdistill ``FSPLoss`` with ``form="column_norm", pooling="max"`` (mean over the
        batch).

    Example:
        >>> ones, twos = jnp.ones((1, 2, 2, 3)), jnp.full((1, 2, 2, 3), 2.0)
        >>> fsp((ones, twos), (ones, ones)).tolist()
        [1.0]

    References:
        Yim et al., `A Gift from Knowledge Distillation
        <https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html>`_,
        2017
    """
    ours, theirs = (fsp_matrix(*side, pooling=pooling, mask=mask) for side in (student, teacher))
    same_features(ours, theirs)
    ours, theirs = widen(ours, theirs)
    gap = kinked_gap(ours, theirs)
    if choice("form", form, {"mean_square": True, "column_norm": False}):
        return jnp.mean(jnp.square(gap), axis=(1, 2))
    return jnp.sum(frobenius(gap, axis=1), axis=1)


def token_gram(student: Pair, teacher: Pair, *, mask: jax.Array | None = None) -> jax.Array:
    r"""Which tokens of one layer resemble which of another: a kernel over positions.

    .. math:: \frac{1}{L^2} \sum_{ij}
        \Bigl(\frac{s^1_i \cdot s^2_j}{D_s} - \frac{t^1_i \cdot t^2_j}{D_t}\Bigr)^2

    over the L real tokens.

    Args:
        student: two layers ``[B, N, D_s]`` (or one layer twice).
        teacher: two layers ``[B, N, D_t]``.
        mask: ``[B, N]``, true for real tokens.

    Returns:
        ``[B]``, float32 or wider.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: masked tokens may hold anything; zero where all is masked; zero at equality.

    Equal to:
        TextBrewer ``mmd_loss`` (its "nst"; it weighs sequences by :math:`L^2`).

    Example:
        >>> one = jnp.ones((1, 3, 4))
        >>> token_gram((one, one), (jnp.zeros((1, 3, 2)),) * 2).tolist()
        [1.0]

    References:
        Yang et al., `TextBrewer <https://arxiv.org/abs/2002.12620>`_, 2020
    """

    def products(first, second):
        first, second = _wide(first, second)
        if mask is not None:
            keep = _tokens(mask, jnp.swapaxes(first, 1, 2))[..., None]
            first, second = (jnp.where(keep, x, 0) for x in (first, second))
        return einsum("bnd,bmd->bnm", first, second) / first.shape[-1]

    ours, theirs = products(*student), products(*teacher)
    same_features(ours, theirs)
    ours, theirs = widen(ours, theirs)
    total = jnp.sum(jnp.square(ours - theirs), axis=(1, 2))
    if mask is None:
        return total / ours.shape[1] ** 2
    return ratio(total, jnp.square(jnp.sum(mask.astype(bool).astype(total.dtype), axis=1)))


def _wide(first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    for x in (first, second):
        if jnp.ndim(x) < 3:
            raise ValueError(
                f"features need positions and channels, [B, ..., C], got {jnp.shape(x)}"
            )
    same_batch(first=first, second=second)
    first, second = widen(first, second)
    return first, second


def _channels(x: jax.Array) -> jax.Array:
    """``[B, ..., C]`` as ``[B, C, positions]``."""
    return jnp.swapaxes(x.reshape(x.shape[0], -1, x.shape[-1]), 1, 2)


def _tokens(mask: jax.Array, x: jax.Array) -> jax.Array:
    if mask.shape != (x.shape[0], x.shape[-1]):
        raise ValueError(f"mask must be {(x.shape[0], x.shape[-1])}, got {mask.shape}")
    return mask.astype(bool)
