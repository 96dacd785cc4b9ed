r"""Ridge fits in a reproducing kernel Hilbert space, and what would have been predicted without a
point.

.. math:: f = \arg\min_f \tfrac12 \sum_i |f(x_i) - y_i|^2 + \tfrac{\lambda}{2} \|f\|^2, \qquad
    f(x) = k(x)^\top (K + \lambda I)^{-1} y

The ridge :math:`\lambda` is the plain one: nothing is divided by n. (scikit-learn's ``KernelRidge``
calls it ``alpha``; a ridge on the mean of squares is :math:`n` times as large here.)

A single ridge is solved by Cholesky, a small part of the work of an eigendecomposition and as
stable: the solution is that of a kernel that differs by rounding. Where a
pivot is at the size of rounding (a singular kernel with a ridge at that size, or zero) the
eigendecomposition takes over, and directions that rounding cannot tell from zero carry no
coefficient. Many ridges, spectra and cross-validation start from
one eigendecomposition, :func:`spectrum`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.losses.numerics import einsum, matmul, ratio, widen
from jaxdistill.theory import _checks


class Fit(NamedTuple):
    """A fit, or several of them on a leading axis.

    Attributes:
        coefficients: ``[..., n, c]``; the fit at new points is :func:`predict` of them. They are
            determined but for directions in which the kernel vanishes.
        fitted: ``[..., n, c]``, the fit at the points it was fitted to.
    """

    coefficients: jax.Array
    fitted: jax.Array


class Spectrum(NamedTuple):
    """An eigendecomposition of a kernel.

    Attributes:
        values: ``[n]`` in ascending order; what rounding cannot tell from zero is zero.
        vectors: ``[n, n]``, orthonormal columns.
    """

    values: jax.Array
    vectors: jax.Array


def ridge_fit(kernel: jax.Array, targets: jax.Array, ridge: Any) -> Fit:
    r"""The ridge fit to targets, by one Cholesky factorisation.

    .. math:: (K + \lambda I)^{-1} y

    Differentiable in all arguments, by solves with the same factor, also for singular kernels and
    repeated eigenvalues; runs under ``jax.jit``. Outside of it, checking that the kernel is
    positive semi-definite costs a second factorisation.

    Args:
        kernel: ``[n, n]``, symmetric and positive semi-definite.
        targets: ``[n, c]``.
        ridge: :math:`\lambda`, at least zero; at zero the interpolant of least norm (for a
            singular kernel, of what of the targets can be interpolated).

    Returns:
        A :class:`Fit`, float32 or wider.

    Raises:
        ValueError: if shapes do not fit; and, where values can be read, for a kernel that is not
            finite, symmetric and positive semi-definite to rounding, targets that are not finite, a
            negative ridge.

    Example:
        >>> fit = ridge_fit(jnp.diag(jnp.array([1.0, 3.0])), jnp.ones((2, 1)), 1.0)
        >>> fit.fitted.tolist()
        [[0.5], [0.75]]
    """
    return _ridge_fit(*_checks.fit_inputs(kernel, targets, ridge))


def predict(cross: jax.Array, coefficients: jax.Array) -> jax.Array:
    """A fit, or all steps of a path, at new points.

    Args:
        cross: ``[m, n]``, the kernel of the new points with those that were fitted.
        coefficients: ``[..., n, c]``, of a :class:`Fit`.

    Returns:
        ``[..., m, c]``, float32 or wider.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> predict(jnp.ones((1, 2)), jnp.array([[1.0], [2.0]])).tolist()
        [[3.0]]
    """
    shapes = jnp.shape(cross), jnp.shape(coefficients)
    if len(shapes[0]) != 2 or len(shapes[1]) < 2 or shapes[0][1] != shapes[1][-2]:
        raise ValueError(
            f"cross must be [m, n] beside coefficients [..., n, c], got {shapes[0]} and {shapes[1]}"
        )
    cross, coefficients = widen(cross, coefficients)
    return einsum("mn,...nc->...mc", cross, coefficients)


def spectrum(kernel: jax.Array) -> Spectrum:
    r"""The eigendecomposition of a kernel, for everything that is a function of its eigenvalues.

    Values below :math:`4 \sqrt n` times the machine's epsilon times the largest become zero. Do not
    differentiate it in the kernel: eigenvectors of repeated eigenvalues have no derivative (nor do
    ridge fits need one: see :func:`ridge_fit`).

    Args:
        kernel: ``[n, n]``, symmetric and positive semi-definite.

    Raises:
        ValueError: for a kernel that is not square, finite, symmetric, or positive semi-definite to
            rounding.

    Example:
        >>> spectrum(jnp.array([[2.0, 1.0], [1.0, 2.0]])).values.round(4).tolist()
        [1.0, 3.0]
    """
    _checks.square(kernel)
    (kernel,) = widen(kernel)
    _checks.positive_semidefinite(kernel)
    return _spectrum(kernel)


def spectral_fit(found: Spectrum, targets: jax.Array, ridge: Any) -> Fit:
    """:func:`ridge_fit` from a spectrum: two products with its vectors for every further ridge.

    Args:
        found: of :func:`spectrum`.
        targets: ``[n, c]``.
        ridge: at least zero.

    Raises:
        ValueError: if shapes do not fit, for a negative ridge, or targets that are not finite.

    Example:
        >>> fit = spectral_fit(spectrum(jnp.diag(jnp.array([1.0, 3.0]))), jnp.ones((2, 1)), 1.0)
        >>> fit.fitted.round(4).tolist()
        [[0.5], [0.75]]
    """
    found, targets, ridge = spectral_inputs(found, targets, ridge)
    return filtered_fit(found, targets, ridge, jnp.ones_like(found.values))


def leave_one_out(found: Spectrum, targets: jax.Array, ridge: Any) -> jax.Array:
    r"""What each point would have been mispredicted by, had it not been fitted to.

    .. math:: y_i - f_{-i}(x_i) = \frac{y_i - f(x_i)}{1 - A_{ii}}, \qquad
        A = K (K + \lambda I)^{-1}

    Both sides of the fraction are sums over eigenvalues of :math:`1 - a_j`, scaled by the largest,
    so that small ridges cancel nothing.

    Args:
        found: of :func:`spectrum`.
        targets: ``[n, c]``.
        ridge: above zero; well above rounding if the kernel is singular, where the limit of small
            ridges is another for every point.

    Returns:
        ``[n, c]``; the predictions are ``targets`` minus these.

    Raises:
        ValueError: if shapes do not fit, for a ridge that is not positive, or targets that
            are not finite.

    Example:
        >>> found = spectrum(jnp.ones((2, 2)))
        >>> leave_one_out(found, jnp.array([[1.0], [3.0]]), 0.5).round(4).tolist()
        [[-1.0], [2.3333]]

    References:
        Rasmussen and Williams, `Gaussian Processes for Machine Learning
        <https://gaussianprocess.org/gpml>`_, 2006, section 5.4.2
    """
    _checks.positive(ridge=ridge)
    found, targets, ridge = spectral_inputs(found, targets, ridge)
    left, residuals = _left_over(found, targets, ridge)
    shares = einsum("ij,j->i", jnp.square(found.vectors), left)
    return ratio(residuals, jnp.broadcast_to(shares[:, None], residuals.shape))


def generalised_cross_validation(found: Spectrum, targets: jax.Array, ridge: Any) -> jax.Array:
    r"""The mean squared leave-one-out error, with every point's share of its fit set to the mean.

    .. math:: \frac{\frac1n \|(I - A) y\|^2}{\bigl(\frac1n \mathrm{tr}(I - A)\bigr)^2}

    Args:
        found: of :func:`spectrum`.
        targets: ``[n, c]``.
        ridge: above zero.

    Returns:
        ``[c]``, one value per output.

    Raises:
        ValueError: if shapes do not fit, for a ridge that is not positive, or targets that
            are not finite.

    Example:
        >>> found = spectrum(jnp.eye(2))
        >>> generalised_cross_validation(found, jnp.array([[1.0], [3.0]]), 0.5).round(4).tolist()
        [5.0]

    References:
        Golub, Heath and Wahba, `Generalized Cross-Validation as a Method for Choosing a Good Ridge
        Parameter <https://doi.org/10.1080/00401706.1979.10489751>`_, 1979
    """
    _checks.positive(ridge=ridge)
    found, targets, ridge = spectral_inputs(found, targets, ridge)
    left, residuals = _left_over(found, targets, ridge)
    return jnp.mean(jnp.square(residuals), axis=0) / jnp.square(jnp.mean(left))


def with_solver(
    kernel: jax.Array, ridge: jax.Array, run: Callable[[Callable[[jax.Array], Fit]], Any]
) -> Any:
    """``run(fit)`` with ``fit(targets [n, c]) -> Fit`` from one factorisation.

    ``run`` is traced twice, once for each way to solve. The factor itself is held constant under
    differentiation: ``custom_linear_solve`` differentiates what it is a solution of.
    """
    frozen, constant = jax.lax.stop_gradient((kernel, ridge))
    lower = jax.lax.linalg.cholesky(_checks.add_ridge(frozen, constant), symmetrize_input=False)

    def system(vector):
        return matmul(kernel, vector) + ridge * vector

    def solve(targets, inverse):
        return jax.lax.custom_linear_solve(
            system, targets, lambda _, vector: inverse(vector), symmetric=True
        )

    def by_cholesky():
        def inverse(vector):
            half = _triangular(lower, vector, transpose_a=False)
            return _triangular(lower, half, transpose_a=True)

        def fit(targets):
            coefficients = solve(targets, inverse)
            # What is fitted, without a product with the kernel. Digits are lost only where the
            # ridge exceeds all eigenvalues by far, and next to nothing is fitted.
            return Fit(coefficients, targets - ridge * coefficients)

        return run(fit)

    def by_eigenvectors():
        found = _spectrum(frozen)
        scale = _inverse(found.values, constant)

        def inverse(vector):
            inside = scale[:, None] * matmul(found.vectors.T, vector)
            return matmul(found.vectors, inside)

        def fit(targets):
            coefficients = solve(targets, inverse)
            return Fit(coefficients, matmul(kernel, coefficients))

        return run(fit)

    # Near the size of rounding there may be a factor by chance, but its pivots are noise; a factor
    # that is not a number compares as false.
    pivots, largest = jnp.square(jnp.diagonal(lower)), jnp.max(jnp.diagonal(frozen)) + constant
    factored = jnp.min(pivots) > 16 * _rounding(pivots) * largest
    return jax.lax.cond(factored, by_cholesky, by_eigenvectors)


def shrinkage(values: jax.Array, ridge: jax.Array) -> jax.Array:
    """What a ridge fit keeps of every eigen-direction, ``d / (d + ridge)``."""
    return ratio(values, values + ridge)


def spectral_inputs(
    found: Spectrum, targets: Any, ridge: Any
) -> tuple[Spectrum, jax.Array, jax.Array]:
    """Spectrum, targets ``[n, c]`` and ridge in one wide dtype, once they are sound."""
    _checks.spectrum_values(found.values)
    _checks.target_shape(targets, jnp.shape(found.values)[0])
    _checks.at_least_zero(ridge=ridge)
    _checks.finite(targets=targets)
    values, vectors, targets = widen(*found, targets)
    return Spectrum(values, vectors), targets, jnp.asarray(ridge).astype(values.dtype)


def filtered_fit(found: Spectrum, targets: jax.Array, ridge: jax.Array, scale: jax.Array) -> Fit:
    """The ridge fit to targets whose coordinates were scaled by ``scale`` ``[n]``."""
    inside = scale[:, None] * matmul(found.vectors.T, targets)
    coefficients = _inverse(found.values, ridge)[:, None] * inside
    fitted = shrinkage(found.values, ridge)[:, None] * inside
    return Fit(matmul(found.vectors, coefficients), matmul(found.vectors, fitted))


@jax.jit
def _ridge_fit(kernel: jax.Array, targets: jax.Array, ridge: jax.Array) -> Fit:
    return with_solver(kernel, ridge, lambda fit: fit(targets))


@jax.jit
def _spectrum(kernel: jax.Array) -> Spectrum:
    values, vectors = jnp.linalg.eigh(kernel)
    return Spectrum(jnp.where(values > _floor(values), values, 0), vectors)


def _floor(values: jax.Array) -> jax.Array:
    """What rounding may have made of an eigenvalue zero."""
    return _rounding(values) * jnp.max(values)


def _rounding(array: jax.Array) -> float:
    return 4 * array.size**0.5 * float(jnp.finfo(array.dtype).eps)


def _inverse(values: jax.Array, ridge: jax.Array) -> jax.Array:
    """``1 / (d + ridge)``, but zero for eigenvalue zero: such a direction is seen from no point,
    and a coefficient in it would add nothing but rounding over the ridge."""
    return jnp.where(values > 0, 1 / jnp.where(values > 0, values + ridge, 1), 0)


def _left_over(
    found: Spectrum, targets: jax.Array, ridge: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """``1 - a_j`` over the largest of them, and ``(I - A) y`` over the same."""
    values = found.values + ridge
    least = jnp.min(values)
    left = least / values
    inside = left[:, None] * matmul(found.vectors.T, targets)
    return left, matmul(found.vectors, inside)


def _triangular(lower: jax.Array, vector: jax.Array, transpose_a: bool) -> jax.Array:
    return jax.lax.linalg.triangular_solve(
        lower, vector, left_side=True, lower=True, transpose_a=transpose_a
    )
