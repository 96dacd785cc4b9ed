r"""Several steps at once: the best of all linear filters they can reach, and Gaussian processes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.losses.numerics import ratio, widen
from jaxdistill.theory import _checks
from jaxdistill.theory.ridge import shrinkage
from jaxdistill.theory.step_filters import direction_inputs


class MultiStep(NamedTuple):
    """The best that a number of steps can do.

    Attributes:
        filter: ``[n]``, what is kept of every direction.
        coefficients: ``[steps + 1]``: the filter is the sum of ``coefficients[i] a^(i + 1)``, and
            they sum to 1. Badly determined where eigenvalues are close; the filter is not.
        risk: the expected squared error.
    """

    filter: jax.Array
    coefficients: jax.Array
    risk: jax.Array


def wiener_filter(signal: jax.Array, noise: jax.Array) -> jax.Array:
    r"""The best filter of all: :math:`\theta_j^2 / (\theta_j^2 + \sigma_j^2)`.

    Args:
        signal: ``[n]``, true coordinates.
        noise: ``[n]``, standard deviations of the noise in them.

    Returns:
        ``[n]``, zero where there is neither.

    Raises:
        ValueError: if the shapes differ or values are not finite.

    Example:
        >>> wiener_filter(jnp.array([3.0, 0.0]), jnp.ones(2)).round(4).tolist()
        [0.9, 0.0]
    """
    signal, noise = _signal_inputs(signal, noise)
    square = jnp.square(signal)
    return ratio(square, square + jnp.square(noise))


def several_steps(
    values: jax.Array, signal: jax.Array, noise: jax.Array, ridge: Any, *, steps: int
) -> MultiStep:
    r"""The best that several steps of self-distillation can do together.

    With k steps after the first fit the reachable filters are
    :math:`\sum_{i=0}^k c_i a^{i+1}` with :math:`\sum_i c_i = 1`: k free numbers. In them the risk

    .. math:: \sum_j (1 - s_j)^2 \theta_j^2 + s_j^2 \sigma_j^2

    is a parabola, so the best are found by least squares. With as many steps as there are distinct
    eigenvalues the filter is Wiener's, the best of all, while one step has one number for all
    directions: the gain can be as large as their number.

    The polynomial is built from orthogonal ones (Arnoldi), because powers of close numbers are as
    good as dependent. :func:`~jaxdistill.theory.weights_of` turns coefficients into the
    weights of the steps of :func:`~jaxdistill.theory.path`.

    Args:
        values: eigenvalues ``[n]`` of the kernel.
        signal: ``[n]``, the true coordinates :math:`\theta`.
        noise: ``[n]``, the standard deviations :math:`\sigma` of the noise in them. (For
            parameters of a linear model with label noise g that is :math:`g / \sqrt{d_j}`, for
            fitted values g.)
        ridge: above zero.
        steps: k, 0 or more; 0 is the first fit.

    Raises:
        ValueError: if shapes do not fit, for a negative number of steps, a ridge that is not
            positive, or values that are not finite.

    Example:
        >>> values, signal = jnp.array([1.0, 3.0]), jnp.array([2.0, 1.0])
        >>> best = several_steps(values, signal, jnp.ones(2), 1.0, steps=2)
        >>> best.filter.round(3).tolist(), wiener_filter(signal, jnp.ones(2)).round(3).tolist()
        ([0.8, 0.5], [0.8, 0.5])

    References:
        Pareek, Du and Oh, `Understanding the Gains from Repeated Self-Distillation
        <https://arxiv.org/abs/2407.04600>`_, 2024
    """
    if steps < 0:
        raise ValueError(f"steps must be 0 or more after the first fit, got {steps}")
    _checks.positive(ridge=ridge)
    values, ridge = direction_inputs(values, ridge)
    signal, noise = _signal_inputs(signal, noise, values)
    kept = shrinkage(values, ridge)
    square, variance = jnp.square(signal), jnp.square(noise)
    weight = jnp.sqrt(square + variance)
    best = ratio(square, square + variance)
    # A filter is a (1 - (1 - a) Q(a)) with any polynomial Q of degree k - 1.
    unit = weight * kept * (1 - kept)
    goal = weight * (kept - best)
    basis: list[tuple[jax.Array, jax.Array]] = []
    total = jnp.zeros_like(kept), jnp.zeros(steps + 1, kept.dtype)
    tiny = 64 * float(jnp.finfo(kept.dtype).eps)
    for index in range(steps):
        if index:
            value, powers = basis[-1]
            value, powers = kept * value, jnp.roll(powers, 1)
        else:
            value, powers = jnp.ones_like(kept), jnp.zeros(steps + 1, kept.dtype).at[0].set(1)
        before = _norm(unit * value)
        # Twice is enough for orthogonality to the last digit.
        for other, other_powers in basis * 2:
            share = jnp.sum(jnp.square(unit) * other * value)
            value, powers = value - share * other, powers - share * other_powers
        norm = _norm(unit * value)
        # Nothing is left once there are as many as there are distinct eigenvalues.
        norm = jnp.where(norm > tiny * before, norm, 0)
        scale = ratio(jnp.ones_like(norm), norm)
        new = scale * value, scale * powers
        basis.append(new)
        share = jnp.sum(unit * new[0] * goal)
        total = total[0] + share * new[0], total[1] + share * new[1]
    found = kept * (1 - (1 - kept) * total[0])
    # 1 - (1 - a) Q in powers of a
    coefficients = jnp.roll(total[1], 1) - total[1]
    risk = jnp.sum(jnp.square(1 - found) * square + jnp.square(found) * variance)
    return MultiStep(found, coefficients.at[0].add(1), risk)


def data_centric(values: jax.Array, ridges: jax.Array) -> jax.Array:
    r"""Gaussian processes fitted in turn to each other's mean: filters multiply.

    .. math:: b_t = \prod_{i \le t} \frac{d}{d + \lambda_i}

    This is self-distillation without ground truth (weight 0), with a ridge, the variance of the
    noise, of its own at every step. It regularises more from step to step.

    Args:
        values: eigenvalues ``[n]`` of the covariance of the prior.
        ridges: ``[steps]``, all above zero.

    Returns:
        ``[steps, n]``.

    Raises:
        ValueError: for ridges that are not ``[steps]`` or not positive, and bad eigenvalues.

    Example:
        >>> data_centric(jnp.array([1.0]), jnp.array([1.0, 3.0])).tolist()
        [[0.5], [0.125]]

    References:
        Borup and Andersen, `Self-Distillation for Gaussian Process Regression and Classification
        <https://arxiv.org/abs/2304.02641>`_, 2023
    """
    values, ridges = _ridges(values, ridges)
    return jnp.cumprod(shrinkage(values[None, :], ridges[:, None]), axis=0)


def distribution_centric(values: jax.Array, ridges: jax.Array) -> jax.Array:
    r"""Gaussian processes that take each other's whole posterior as their prior: precisions add.

    .. math:: b_t = \frac{d}{d + \lambda_{(t)}}, \qquad
        \frac{1}{\lambda_{(t)}} = \sum_{i \le t} \frac{1}{\lambda_i}

    Every step sees the targets again, so t steps are one fit with a smaller ridge: the opposite of
    :func:`data_centric`, it regularises less from step to step.

    Args:
        values: eigenvalues ``[n]`` of the covariance of the prior.
        ridges: ``[steps]``, all above zero.

    Returns:
        ``[steps, n]``.

    Raises:
        ValueError: for ridges that are not ``[steps]`` or not positive, and bad eigenvalues.

    Example:
        >>> distribution_centric(jnp.array([1.0]), jnp.array([1.0, 1.0])).round(4).tolist()
        [[0.5], [0.6667]]

    References:
        Borup and Andersen, `Self-Distillation for Gaussian Process Regression and Classification
        <https://arxiv.org/abs/2304.02641>`_, 2023
    """
    values, ridges = _ridges(values, ridges)
    return shrinkage(values[None, :], 1 / jnp.cumsum(1 / ridges)[:, None])


def _ridges(values: Any, ridges: Any) -> tuple[jax.Array, jax.Array]:
    values, _ = direction_inputs(values, 0.0)
    if jnp.ndim(ridges) != 1 or not jnp.size(ridges):
        raise ValueError(f"ridges must be [steps], got shape {jnp.shape(ridges)}")
    _checks.finite(ridges=ridges)
    if _checks.concrete(ridges) and _checks.smallest(ridges) <= 0:
        raise ValueError(f"ridges must be above 0, the least is {_checks.smallest(ridges)}")
    return values, jnp.asarray(ridges).astype(values.dtype)


def _signal_inputs(signal: Any, noise: Any, values: Any = None) -> tuple[jax.Array, jax.Array]:
    shapes = jnp.shape(signal), jnp.shape(noise)
    size = shapes[0] if values is None else values.shape
    if len(size) != 1 or shapes != (size, size):
        raise ValueError(f"signal and noise must both be [n], got {shapes[0]} and {shapes[1]}")
    _checks.finite(signal=signal, noise=noise)
    if values is not None:
        return jnp.asarray(signal).astype(values.dtype), jnp.asarray(noise).astype(values.dtype)
    signal, noise = widen(signal, noise)
    return signal, noise


def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(x)))
