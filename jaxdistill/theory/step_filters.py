r"""What steps of self-distillation keep of every eigen-direction of the targets: one number each.

The recursion and its conventions are those of :mod:`jaxdistill.theory.self_distillation`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.losses.numerics import ratio, widen
from jaxdistill.theory import _checks
from jaxdistill.theory.ridge import shrinkage


def filters(values: jax.Array, ridge: Any, weights: Any, *, steps: int | None = None) -> jax.Array:
    r"""What every step keeps of every eigen-direction of the targets: the :math:`b_t`.

    They lie in [0, 1] and do not decrease with the eigenvalue, for weights in [0, 1]. From step to
    step they do not increase if the weights do not; with a weight that grows they may.

    Args:
        values: eigenvalues ``[n]``, of :func:`~jaxdistill.theory.spectrum`.
        ridge: at least zero.
        weights: of the ground truth, one number or ``[steps]``.
        steps: how many, counting the first fit.

    Returns:
        ``[steps, n]``.

    Raises:
        ValueError: for eigenvalues that are negative or not ``[n]``, a negative ridge, weights that
            are not finite or not one per step.

    Example:
        >>> filters(jnp.array([1.0, 3.0]), 1.0, 0.5, steps=2).tolist()
        [[0.5, 0.75], [0.375, 0.65625]]
    """
    values, ridge = direction_inputs(values, ridge)
    return _filters(values, ridge, _checks.step_weights(weights, steps, values.dtype))


def filter_at(values: jax.Array, ridge: Any, weight: Any, step: Any) -> jax.Array:
    r"""The filter of one step at a constant weight, directly.

    .. math:: b_t = a \Bigl(q^{t-1} + \alpha \frac{1 - q^{t-1}}{1 - q}\Bigr), \qquad
        q = (1 - \alpha) a

    Args:
        values: eigenvalues ``[n]``.
        ridge: at least zero.
        weight: of the ground truth, one number.
        step: t, 1 for the first fit; may be traced.

    Returns:
        ``[n]``.

    Raises:
        ValueError: as :func:`filters`, and for a step below 1.

    Example:
        >>> filter_at(jnp.array([1.0, 3.0]), 1.0, 0.5, 2).tolist()
        [0.375, 0.65625]
    """
    values, ridge = direction_inputs(values, ridge)
    return shrinkage(values, ridge) * first_fit_filter(values, ridge, weight, step)


def first_fit_filter(values: jax.Array, ridge: Any, weight: Any, step: Any) -> jax.Array:
    r"""Step t as a function of the first fit: :math:`y_t = V \mathrm{diag}(r) V^\top y_1`.

    .. math:: r = q^{t-1} + \alpha \frac{1 - q^{t-1}}{1 - q}, \qquad
        q = (1 - \alpha) \frac{d}{d + \lambda}

    Nothing is divided by an eigenvalue, so singular kernels are no exception.

    Args:
        values: eigenvalues ``[n]``.
        ridge: at least zero.
        weight: of the ground truth, one number.
        step: t, 1 for the first fit, where r is 1; may be traced.

    Returns:
        ``[n]``.

    Raises:
        ValueError: as :func:`filter_at`.

    Example:
        >>> first_fit_filter(jnp.array([1.0, 3.0]), 1.0, 0.5, 2).tolist()
        [0.75, 0.875]
    """
    values, ridge = direction_inputs(values, ridge)
    _checks.scalar(weight=weight)
    if _checks.concrete(step) and step < 1:
        raise ValueError(f"step must be 1 or more (the first fit), got {int(step)}")
    weight = jnp.asarray(weight).astype(values.dtype)
    ratios = (1 - weight) * shrinkage(values, ridge)
    # A whole exponent, as the base is negative for weights above 1.
    later = jnp.asarray(step).astype(jnp.int32) - 1
    power = jax.lax.pow(ratios, jnp.broadcast_to(later, ratios.shape))
    return power + weight * ratio(1 - power, 1 - ratios)


def polynomial_coefficients(weights: Any, *, steps: int | None = None) -> jax.Array:
    r"""The last step as a polynomial in the first: :math:`y_T = \sum_{j=1}^T c_j A^j y`.

    .. math:: c_j = \alpha_{T-j+1} \prod_{i > T-j+1} (1 - \alpha_i), \qquad \alpha_1 := 1, \qquad
        \sum_j c_j = 1

    Args:
        weights: of the ground truth, one number or ``[steps]``.
        steps: T, counting the first fit.

    Returns:
        ``[steps]``: :math:`c_1, \dots, c_T`, float32 or wider.

    Raises:
        ValueError: for weights that are not finite or not one per step.

    Example:
        >>> polynomial_coefficients(0.25, steps=3).tolist()
        [0.25, 0.1875, 0.5625]
    """
    (wide,) = widen(weights)
    wide = _checks.step_weights(wide, steps, wide.dtype).at[0].set(1)[::-1]
    later = jnp.cumprod(jnp.concatenate([jnp.ones_like(wide[:1]), 1 - wide[:-1]]))
    return wide * later


def weights_of(coefficients: jax.Array) -> jax.Array:
    r"""The weights of the steps from those of the powers, the inverse of
    :func:`polynomial_coefficients`.

    .. math:: \alpha_{T-j+1} = \frac{c_j}{1 - \sum_{i < j} c_i}

    Args:
        coefficients: ``[steps]``, with the sum 1.

    Returns:
        ``[steps]``; the first is 1. Large, and without a limit, where a denominator is near zero.

    Raises:
        ValueError: for coefficients that are not ``[steps]``, not finite or do not sum to 1.

    Example:
        >>> weights_of(jnp.array([0.25, 0.1875, 0.5625])).tolist()
        [1.0, 0.25, 0.25]
    """
    if jnp.ndim(coefficients) != 1 or not jnp.size(coefficients):
        raise ValueError(f"coefficients must be [steps], got shape {jnp.shape(coefficients)}")
    _checks.finite(coefficients=coefficients)
    if _checks.concrete(coefficients):
        found = np.asarray(coefficients, np.float64)
        if abs(found.sum() - 1) > 1e-4 * np.abs(found).sum():
            raise ValueError(f"coefficients must sum to 1, they sum to {found.sum():.6g}")
    (coefficients,) = widen(coefficients)
    # What is left is summed from the other end, where nothing cancels but what cancels in it.
    left = jnp.cumsum(coefficients[::-1])[::-1]
    return ratio(coefficients, left)[::-1]


def limit_filter(values: jax.Array, ridge: Any, weight: Any) -> jax.Array:
    r"""What infinitely many steps keep of every direction, :math:`\alpha d / (\alpha d + \lambda)`.

    Args:
        values: eigenvalues ``[n]``.
        ridge: at least zero.
        weight: of the ground truth, in (0, 1].

    Returns:
        ``[n]``.

    Raises:
        ValueError: for a weight outside (0, 1], and as :func:`filters`.

    Example:
        >>> limit_filter(jnp.array([1.0, 3.0]), 1.0, 0.5).round(4).tolist()
        [0.3333, 0.6]
    """
    _checks.limit_weight(weight)
    values, ridge = direction_inputs(values, ridge)
    return shrinkage(jnp.asarray(weight).astype(values.dtype) * values, ridge)


def limit_rate(values: jax.Array, ridge: Any, weight: Any) -> jax.Array:
    r"""By which factor every step at least shrinks the distance to the limit.

    In each direction :math:`b_t - b_\infty = q (b_{t-1} - b_\infty)` exactly; the rate is the
    largest q, :math:`(1 - \alpha) d_{\max} / (d_{\max} + \lambda)`.

    Args:
        values: eigenvalues ``[n]``.
        ridge: at least zero.
        weight: of the ground truth, in (0, 1].

    Returns:
        A number in [0, 1).

    Raises:
        ValueError: for a weight outside (0, 1], and as :func:`filters`.

    Example:
        >>> float(limit_rate(jnp.array([1.0, 3.0]), 1.0, 0.2).round(4))
        0.6
    """
    _checks.limit_weight(weight)
    values, ridge = direction_inputs(values, ridge)
    weight = jnp.asarray(weight).astype(values.dtype)
    return (1 - weight) * shrinkage(jnp.max(values), ridge)


def filter_ratios(filters: jax.Array) -> jax.Array:
    r"""How far a filter favours the leading direction: its value there over that of every other.

    What holds of steps with weights in [0, 1], and of their limit: every ratio is at least that of
    the first fit. So self-distillation sparsifies the spectrum relative to the first fit. With
    weight 0 the ratio of step t is the t-th power of the first.

    What does **not** hold: that the ratios grow from step to step. For :math:`a = (0.9, 0.01)` and
    weight 0.3 they are 90.0, 272.6, 263.9, 255.6.

    Args:
        filters: ``[..., n]`` of :func:`filters`, eigenvalues in ascending order.

    Returns:
        ``[..., n]``; infinite where nothing is kept of a direction.

    Raises:
        ValueError: for a filter without directions.

    Example:
        >>> filter_ratios(jnp.array([0.25, 0.5])).tolist()
        [2.0, 1.0]
    """
    if not jnp.ndim(filters) or not jnp.shape(filters)[-1]:
        raise ValueError(f"filters must be [..., n], got shape {jnp.shape(filters)}")
    (filters,) = widen(filters)
    return filters[..., -1:] / filters


def direction_inputs(values: Any, ridge: Any) -> tuple[jax.Array, jax.Array]:
    _checks.spectrum_values(values)
    _checks.at_least_zero(ridge=ridge)
    (values,) = widen(values)
    return values, jnp.asarray(ridge).astype(values.dtype)


@jax.jit
def _filters(values: jax.Array, ridge: jax.Array, weights: jax.Array) -> jax.Array:
    kept = shrinkage(values, ridge)

    def step(before, weight):
        now = kept * (weight + (1 - weight) * before)
        return now, now

    return jax.lax.scan(step, jnp.ones_like(kept), weights)[1]
