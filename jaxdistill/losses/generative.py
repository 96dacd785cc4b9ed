r"""Losses in which the student must bring the teacher's features forth: from masked features, or as
a density.

The generators, regressors and variance branches are learned, so they stay outside: the losses take
what they give.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import same_features
from jaxdistill.losses._hyper import AtMostOne, Hyper
from jaxdistill.losses.numerics import same_shape, widen
from jaxdistill.settings import Fraction, NonNegative


def channel_mask(key: jax.Array, shape: tuple[int, ...], *, rate: Fraction = 0.15) -> jax.Array:
    """Masks whole channels of an example: what the generator of :func:`mgd` is shown.

    Args:
        key: a random key.
        shape: of the features, ``[B, ..., C]``.
        rate: the share of channels hidden.

    Returns:
        ``[B, 1, ..., 1, C]``, 0.0 where hidden and 1.0 where shown, to be multiplied with the
        features.

    Example:
        >>> channel_mask(jax.random.key(0), (2, 4, 4, 3), rate=0.5).shape
        (2, 1, 1, 3)
    """
    ends = (shape[0],) + (1,) * (len(shape) - 2) + (shape[-1],)
    return (jax.random.uniform(key, ends) >= rate).astype(jnp.float32)


def mgd(student: jax.Array, teacher: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
    r"""Masked generative distillation: features regenerated from masked ones against the teacher's.

    .. math:: \sum_d m_d \bigl(G(s \odot \text{mask})_d - t_d\bigr)^2

    Args:
        student: what the generator made of the student's masked features, ``[B, ..., C]``.
        teacher: features of the same shape.
        mask: ``[B, ...]``, leading the shape of the features: positions that count (ViTKD counts
            the hidden tokens alone). Everything counts without it, as in the paper.

    Returns:
        ``[B]``, the sum over each example, float32 or wider. The published
        weight belongs to this sum.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit.

    Hard values: none; zero where student and teacher are equal.

    Equal to:
        cls_KD ``MGDLoss`` with the weight 7e-5 (mean over the batch).

    Example:
        >>> mgd(jnp.ones((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 1))).tolist()
        [4.0]

    References:
        Yang et al., `Masked Generative Distillation <https://arxiv.org/abs/2205.01529>`_, 2022
    """
    same_features(student, teacher)
    student, teacher = widen(student, teacher)
    gap = student - teacher
    if mask is not None:
        gap = jnp.where(_spread(mask, gap), gap, 0)
    return jnp.sum(jnp.square(gap), axis=tuple(range(1, gap.ndim)))


def vitkd(
    student: tuple[jax.Array, jax.Array],
    teacher: tuple[jax.Array, jax.Array],
    mask: jax.Array,
    *,
    mimic_weight: Hyper[NonNegative] = 3e-5,
    generation_weight: Hyper[NonNegative] = 3e-6,
    rate: AtMostOne = 0.5,
) -> jax.Array:
    r"""ViTKD: shallow layers are mimicked, the last one is generated from masked tokens.

    .. math:: a \sum_{\ell,n,d} (s - t)^2 + \frac{b}{\lambda} \sum_{n,d} m_n (g - h)^2_{nd}

    Args:
        student: shallow features ``[B, layers, N, D]`` (projected), and the last layer as the
            generator restored it, ``[B, N, D]``.
        teacher: features of the same two shapes.
        mask: ``[B, N]``, true for the tokens that were hidden from the generator.
        mimic_weight: :math:`a`.
        generation_weight: :math:`b`.
        rate: :math:`\lambda`, the share of tokens hidden.

    Returns:
        ``[B]``, float32 or wider.

    Raises:
        ValueError: if the shapes differ.

    Hard values: none; zero where both pairs are equal.

    Equal to:
        cls_KD ``ViTKDLoss`` (mean over the batch).

    Example:
        >>> pair = jnp.ones((1, 2, 3, 4)), jnp.ones((1, 3, 4))
        >>> zeros = jnp.zeros((1, 2, 3, 4)), jnp.zeros((1, 3, 4))
        >>> mask = jnp.array([[True, False, False]])
        >>> vitkd(pair, zeros, mask, mimic_weight=1.0, generation_weight=1.0).tolist()
        [32.0]

    References:
        Yang et al., `ViTKD: Practical Guidelines for ViT Feature Knowledge Distillation
        <https://arxiv.org/abs/2209.02432>`_, 2022
    """
    (low, made), (low_target, high_target) = student, teacher
    mimicked = mgd(low, low_target)
    return mimic_weight * mimicked + generation_weight / rate * mgd(made, high_target, mask=mask)


def vid(
    student: jax.Array,
    teacher: jax.Array,
    raw_variance: jax.Array,
    *,
    epsilon: NonNegative = 1e-5,
    axis: int = -1,
) -> jax.Array:
    r"""Variational information distillation: the teacher under a Gaussian of the student.

    .. math:: \frac{1}{2D} \sum_d \frac{(\mu_d - t_d)^2}{v_d} + \log v_d,
        \qquad v_d = \log(1 + e^{\alpha_d}) + \epsilon

    It is the negative log density up to a constant, so it can be negative and is not zero at
    equality.

    Args:
        student: the regressed mean :math:`\mu`, ``[..., D]``.
        teacher: features of the same shape.
        raw_variance: :math:`\alpha`, ``[D]`` (one per channel) or the shape of the features. It is
            trained: hand it to the optimiser (a public port leaves it out).
        epsilon: the least variance.
        axis: the channels.

    Returns:
        ``[...]``, one value per token or pixel, float32 or wider.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: none; a very negative ``raw_variance`` gives the least variance.

    Equal to:
        RepDistiller ``VIDLoss`` and torchdistill ``VIDLoss`` on the regressor's output.

    Example:
        >>> start = jnp.log(jnp.expm1(jnp.array([5.0])))
        >>> vid(jnp.array([[1.0]]), jnp.array([[1.0]]), start, epsilon=0.0).round(4).tolist()
        [0.8047]

    References:
        Ahn et al., `Variational Information Distillation for Knowledge Transfer
        <https://arxiv.org/abs/1904.05835>`_, 2019
    """
    same_features(student, teacher, axis=axis)
    student, teacher, raw_variance = widen(student, teacher, raw_variance)
    variance = jax.nn.softplus(raw_variance) + jnp.asarray(epsilon, student.dtype)
    return _gaussian(student - teacher, _channels(variance, student, axis), axis) / 2


def pad(
    student: jax.Array,
    teacher: jax.Array,
    log_variance: jax.Array,
    *,
    epsilon: NonNegative = 1e-6,
    axis: int = -1,
) -> jax.Array:
    r"""Prime-aware adaptive distillation: an uncertainty of its own for every example and feature.

    .. math:: \frac{1}{D} \sum_d \frac{(t_d - s_d)^2}{\epsilon + e^{v_d}} + v_d

    Args:
        student: features ``[..., D]``.
        teacher: features of the same shape.
        log_variance: :math:`v`, what the variance branch says of the student's features, of the
            same shape.
        epsilon: added to the variance.
        axis: the features.

    Returns:
        ``[...]``, one value per example (or token), float32 or wider; it can be negative.

    Raises:
        ValueError: if the shapes differ.

    Hard values: none.

    Equal to:
        torchdistill ``PADL2Loss``.

    Example:
        >>> pad(jnp.array([[1.0]]), jnp.array([[3.0]]), jnp.zeros((1, 1)), epsilon=0.0).tolist()
        [4.0]

    References:
        Zhang et al., `Prime-Aware Adaptive Distillation <https://arxiv.org/abs/2008.01458>`_, 2020
    """
    same_features(student, teacher, axis=axis)
    same_shape(student=student, log_variance=log_variance)
    student, teacher, log_variance = widen(student, teacher, log_variance)
    weight = 1 / (jnp.asarray(epsilon, student.dtype) + jnp.exp(log_variance))
    return jnp.mean(jnp.square(teacher - student) * weight + log_variance, axis=axis)


def _gaussian(gap: jax.Array, variance: jax.Array, axis: int) -> jax.Array:
    return jnp.mean(jnp.square(gap) / variance + jnp.log(variance), axis=axis)


def _channels(values: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    if values.shape == x.shape:
        return values
    if values.shape != (x.shape[axis],):
        raise ValueError(
            f"raw_variance must be {(x.shape[axis],)} or {x.shape}, got {values.shape}"
        )
    shape = [1] * x.ndim
    shape[axis] = -1
    return values.reshape(shape)


def _spread(mask: jax.Array, x: jax.Array) -> Any:
    if mask.shape != x.shape[: mask.ndim]:
        raise ValueError(f"mask {mask.shape} does not lead the shape {x.shape}")
    return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)).astype(bool)
