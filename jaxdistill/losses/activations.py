r"""Losses on the activations of stages: the side of zero they fall on, and their coarser looks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from jaxdistill.losses._geometry import maps, pool, same_features
from jaxdistill.losses._hyper import Hyper
from jaxdistill.losses.numerics import same_batch, unless_odd, widen
from jaxdistill.settings import Count, NonNegative


def activation_boundary(
    student: jax.Array, teacher: jax.Array, *, margin: Hyper[NonNegative] = 1.0
) -> jax.Array:
    r"""Activation boundaries: the student's neurons must be on the teacher's side of zero.

    .. math:: \sum_d \begin{cases} (s_d + \mu)^2 & t_d \le 0,\ s_d > -\mu \\
        (s_d - \mu)^2 & t_d > 0,\ s_d \le \mu \\ 0 & \text{else} \end{cases}

    Args:
        student: activations before the ReLU, ``[B, ...]``, after the connector.
        teacher: activations before the ReLU, of the same shape.
        margin: :math:`\mu`.

    Returns:
        ``[B]``, the sum over each example, float32 or wider.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit.

    Hard values: none. Equal activations are not at zero: only those beyond the margin cost nothing.

    Equal to:
        torchdistill ``AltActTransferLoss`` (mean over the batch); RepDistiller ``ABLoss`` (mean
        over the batch, summed over stages) with the weight ``3 / 1000 * 2 ** (i - n + 1)`` for
        stage i of n.

    Example:
        >>> activation_boundary(jnp.array([[0.5, -2.0]]), jnp.array([[-1.0, 3.0]])).tolist()
        [11.25]

    References:
        Heo et al.,
        `Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons
        <https://arxiv.org/abs/1811.03233>`_, 2019
    """
    same_features(student, teacher)
    student, teacher = widen(student, teacher)
    active = teacher > 0
    wrong = jnp.where(active, student <= margin, student > -margin)
    gap = jnp.where(active, student - margin, student + margin)
    every = tuple(range(1, student.ndim))
    costs = jnp.where(wrong, jnp.square(jnp.where(wrong, gap, 0)), 0)
    return jnp.sum(unless_odd(costs, student, teacher), axis=every)


def overhaul_margin(scale: jax.Array, bias: jax.Array) -> jax.Array:
    r"""The margin of :func:`overhaul`: the mean of a batch-normalised activation below zero.

    .. math:: m = \mathrm{E}[x \mid x < 0]
        = \beta - \sigma\,\frac{\varphi(\beta/\sigma)}{\Phi(-\beta/\sigma)},
        \qquad x \sim N(\beta, \sigma^2)

    and :math:`-3\sigma` where :math:`\Phi(-\beta/\sigma) \le 0.001`.

    Args:
        scale: the scale of the teacher's batch normalisation before the ReLU, ``[C]``; its size is
            :math:`\sigma`.
        bias: its bias :math:`\beta`, ``[C]``.

    Returns:
        ``[C]``, float32 or wider.

    Hard values: :math:`\min(\beta, 0)` where the scale is zero.

    Equal to:
        mdistiller ``OFD.init_ofd_modules``.

    Example:
        >>> overhaul_margin(jnp.array([1.0, 1.0]), jnp.array([0.0, 9.0])).round(4).tolist()
        [-0.7979, -3.0]
    """
    scale, bias = widen(scale, bias)
    sigma = jnp.abs(scale)
    flat = sigma == 0
    ratio = bias / jnp.where(flat, 1, sigma)
    log_below = log_ndtr(-ratio)
    log_density = -0.5 * jnp.square(ratio) - 0.5 * jnp.log(2 * jnp.pi).astype(ratio.dtype)
    rare = jnp.exp(log_below) <= 0.001
    # For a bias far below zero both factors are known only through their quotient.
    quotient = jnp.exp(jnp.where(rare, 0, log_density - log_below))
    inside = bias - sigma * quotient
    return jnp.where(flat, jnp.minimum(bias, 0), jnp.where(rare, -3 * sigma, inside))


def overhaul(student: jax.Array, teacher: jax.Array, margin: jax.Array) -> jax.Array:
    r"""Overhaul of feature distillation: a partial L2 distance to the margined teacher.

    .. math:: \sum_d \begin{cases} 0 & s_d \le \max(t_d, m),\ t_d \le 0 \\
        (s_d - \max(t_d, m))^2 & \text{else} \end{cases}

    Args:
        student: features before the ReLU, after the connector, ``[B, ..., C]``.
        teacher: features before the ReLU, of the same shape.
        margin: ``[C]``, negative, see :func:`overhaul_margin`.

    Returns:
        ``[B]``, the sum over each example, float32 or wider.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: none; zero where student and teacher are equal.

    Equal to:
        mdistiller ``OFD.feat_loss`` (mean over the batch), where stage i of n weighs ``1e-3 / 2 **
        (n - i - 1)``. The teacher runs with batch statistics in the authors' code.

    Example:
        >>> student, teacher = jnp.array([[-1.0, 0.5, 2.0]]), jnp.array([[-0.2, -0.2, 1.0]])
        >>> overhaul(student, teacher, jnp.full(3, -0.5)).round(4).tolist()
        [1.49]

    References:
        Heo et al.,
        `A Comprehensive Overhaul of Feature Distillation <https://arxiv.org/abs/1904.01866>`_, 2019
    """
    same_features(student, teacher)
    student, teacher, margin = widen(student, teacher, margin)
    if margin.shape != student.shape[-1:]:
        raise ValueError(
            f"margin needs one entry per channel of {student.shape}, got {margin.shape}"
        )
    target = jnp.maximum(teacher, margin.reshape((1,) * (student.ndim - 1) + (-1,)))
    counts = (student > target) | (teacher > 0)
    gap = jnp.where(counts, student - target, 0)
    costs = unless_odd(jnp.square(gap), student, teacher, target)
    return jnp.sum(costs, axis=tuple(range(1, student.ndim)))


def review(
    student: jax.Array, teacher: jax.Array, *, sizes: tuple[Count, ...] = (4, 2, 1)
) -> jax.Array:
    r"""Knowledge review's hierarchical context loss: squared gaps on a pyramid of maps.

    .. math:: \frac{\sum_i 2^{-i}\, \mathrm{mean}\,(P_i(s) - P_i(t))^2}{\sum_i 2^{-i}}

    where :math:`P_0` is the map itself and :math:`P_i` its average pool to each of ``sizes`` below
    its height.

    Args:
        student: fused maps ``[B, H, W, C]``, see :func:`review_fuse`.
        teacher: maps of the same shape.
        sizes: of the pyramid.

    Returns:
        ``[B]``, float32 or wider.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit.

    Hard values: none; zero where student and teacher are equal.

    Equal to:
        mdistiller ``hcl_loss`` (summed over stages), torchdistill ``HierarchicalContextLoss``.

    Example:
        >>> review(jnp.ones((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 1))).tolist()
        [1.0]

    References:
        Chen et al.,
        `Distilling Knowledge via Knowledge Review <https://arxiv.org/abs/2104.09044>`_, 2021
    """
    same_features(maps(student, "student"), maps(teacher, "teacher"))
    student, teacher = widen(student, teacher)
    levels = [(student, teacher)]
    for size in sizes:
        if size < student.shape[1]:
            levels.append((pool(student, size, size), pool(teacher, size, size)))
    weights = [0.5**level for level in range(len(levels))]
    gaps = [jnp.mean(jnp.square(s - t), axis=(1, 2, 3)) for s, t in levels]
    weighted = [w * gap for w, gap in zip(weights, gaps, strict=True)]
    return sum(weighted[1:], weighted[0]) / sum(weights)


def review_fuse(feature: jax.Array, residual: jax.Array, gates: jax.Array) -> jax.Array:
    r"""The attention-based fusion of knowledge review, without its convolutions.

    .. math:: g_1 \odot f + g_2 \odot \mathrm{up}(r)

    The residual of the deeper stage is enlarged to the feature's grid by nearest neighbours. The
    gates are :math:`\sigma` of a 1x1 convolution of both, joined by channels (see
    :func:`review_enlarge` for the enlarged residual); convolutions are learned, so they stay
    outside.

    Args:
        feature: this stage, ``[B, H, W, C]``.
        residual: the deeper stage, ``[B, h, w, C]``.
        gates: two weights per position, ``[B, H, W, 2]``.

    Returns:
        ``[B, H, W, C]``, float32 or wider.

    Raises:
        ValueError: if the shapes do not fit.

    Equal to:
        the fusing step of mdistiller's ``ABF``.

    Example:
        >>> feature, residual = jnp.ones((1, 2, 2, 1)), jnp.full((1, 1, 1, 1), 3.0)
        >>> review_fuse(feature, residual, jnp.full((1, 2, 2, 2), 0.5))[0, :, :, 0].tolist()
        [[2.0, 2.0], [2.0, 2.0]]
    """
    feature, residual, gates = widen(maps(feature, "feature"), maps(residual, "residual"), gates)
    same_batch(feature=feature, residual=residual, gates=gates)
    same_features(feature[:, :1, :1], residual[:, :1, :1])
    if gates.shape != (*feature.shape[:3], 2):
        raise ValueError(f"gates must be {(*feature.shape[:3], 2)}, got {gates.shape}")
    enlarged = review_enlarge(residual, feature.shape[1], feature.shape[2])
    return feature * gates[..., :1] + enlarged * gates[..., 1:]


def review_enlarge(x: jax.Array, height: int, width: int) -> jax.Array:
    """Maps ``[B, h, w, C]`` at ``[B, height, width, C]`` by nearest neighbours, as torch does it.

    Args:
        x: the smaller maps.
        height: of the result.
        width: of the result.

    Returns:
        ``[B, height, width, C]``.

    Example:
        >>> review_enlarge(jnp.arange(2.0).reshape(1, 1, 2, 1), 1, 4).ravel().tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    rows = jnp.arange(height) * x.shape[1] // height
    columns = jnp.arange(width) * x.shape[2] // width
    return x[:, rows][:, :, columns]
