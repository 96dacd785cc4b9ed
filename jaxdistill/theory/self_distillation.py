r"""Repeated self-distillation of ridge fits, in closed form.

The first fit is the ridge fit to the targets. At every later step a student of the same kernel and
ridge is fitted to the targets and to what its predecessor says:

.. math:: f_t = \arg\min_f \tfrac{\alpha_t}{2} \|f(X) - y\|^2
    + \tfrac{1 - \alpha_t}{2} \|f(X) - f_{t-1}(X)\|^2 + \tfrac{\lambda}{2} \|f\|^2

The weight :math:`\alpha` is that of the **ground truth** (others write :math:`\xi = 1 - \alpha` for
the teacher's), and nothing is divided by n. With :math:`y_0 = y` the first step is no exception,
and its weight changes nothing. A step is the plain ridge fit to mixed targets,

.. math:: y_t = A \bigl(\alpha_t y + (1 - \alpha_t) y_{t-1}\bigr), \qquad
    A = K (K + \lambda I)^{-1}

so that in the eigenbasis :math:`K = V \mathrm{diag}(d) V^\top` it is one number per direction,

.. math:: y_t = V \mathrm{diag}(b_t) V^\top y, \qquad
    b_t = a (\alpha_t + (1 - \alpha_t) b_{t-1}), \qquad a = \frac{d}{d + \lambda}, \quad b_0 = 1

Borup and Andersen, `Even your Teacher Needs Guidance: Ground-Truth Targets Dampen Regularization
Imposed by Self-Distillation <https://arxiv.org/abs/2102.13088>`_, NeurIPS 2021.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.losses.numerics import same_shape, widen
from jaxdistill.theory import _checks
from jaxdistill.theory.ridge import (
    Fit,
    Spectrum,
    filtered_fit,
    predict,
    ridge_fit,
    spectral_inputs,
    with_solver,
)
from jaxdistill.theory.step_filters import first_fit_filter


class Weight(NamedTuple):
    """The ground-truth weight with the least squared error on given targets.

    Attributes:
        weight: the one to use, clipped to [0, 1] if asked for.
        free: the minimum of the parabola wherever it lies.
        error: the sum of squared errors at ``weight``.
        curvature: the squared distance of the two fits: the error at any weight is that at ``free``
            plus ``curvature`` times the squared distance to it.
    """

    weight: jax.Array
    free: jax.Array
    error: jax.Array
    curvature: jax.Array


class Chosen(NamedTuple):
    """A path whose weights were chosen step by step.

    Attributes:
        fits: all steps, :class:`~jaxdistill.theory.Fit` with leading axis ``[steps]``.
        weights: ``[steps]``; the first is 1.
        errors: ``[steps]``, sums of squared errors on the validation targets.
    """

    fits: Fit
    weights: jax.Array
    errors: jax.Array


def path(
    kernel: jax.Array, targets: jax.Array, ridge: Any, weights: Any, *, steps: int | None = None
) -> Fit:
    """All steps of self-distillation, by one Cholesky factorisation and one solve a step.

    Differentiable in all arguments and jit-compiled as :func:`~jaxdistill.theory.ridge_fit` is.

    Args:
        kernel: ``[n, n]``, symmetric and positive semi-definite.
        targets: ``[n, c]``.
        ridge: at least zero.
        weights: of the ground truth, one number or ``[steps]``, whose first entry changes nothing.
            They may lie outside [0, 1].
        steps: how many, counting the first fit; not needed beside an array of weights.

    Returns:
        A :class:`~jaxdistill.theory.Fit` with a leading axis ``[steps]``.

    Raises:
        ValueError: if shapes do not fit; and, where values can be read, for a kernel that is not
            finite, symmetric and positive semi-definite to rounding, a negative ridge, targets or
            weights that are not finite.

    Example:
        >>> fits = path(jnp.eye(1), jnp.array([[8.0]]), 1.0, 0.0, steps=3)
        >>> fits.fitted[:, 0, 0].tolist()
        [4.0, 2.0, 1.0]
    """
    kernel, targets, ridge = _checks.fit_inputs(kernel, targets, ridge)
    return _path(kernel, targets, ridge, _checks.step_weights(weights, steps, kernel.dtype))


def fit_at(found: Spectrum, targets: jax.Array, ridge: Any, weight: Any, step: Any) -> Fit:
    r"""The fit of one step at a constant weight, directly, for training and new points.

    .. math:: f_t(x) = k(x)^\top V \mathrm{diag}\Bigl(\frac{\alpha + (1 - \alpha) b_{t-1}}
        {d + \lambda}\Bigr) V^\top y

    Args:
        found: of :func:`~jaxdistill.theory.spectrum`.
        targets: ``[n, c]``.
        ridge: at least zero.
        weight: of the ground truth, one number.
        step: t, 1 for the first fit; may be traced.

    Returns:
        A :class:`~jaxdistill.theory.Fit`.

    Raises:
        ValueError: if shapes do not fit; and as :func:`filter_at`.

    Example:
        >>> from jaxdistill.theory import spectrum
        >>> fit_at(spectrum(jnp.eye(1)), jnp.array([[8.0]]), 1.0, 0.0, 3).fitted.tolist()
        [[1.0]]
    """
    found, targets, ridge = spectral_inputs(found, targets, ridge)
    # The mixed targets of step t are to the targets what step t is to the first fit.
    return filtered_fit(found, targets, ridge, first_fit_filter(found.values, ridge, weight, step))


def limit(kernel: jax.Array, targets: jax.Array, ridge: Any, weight: Any) -> Fit:
    r"""Infinitely many steps at a constant weight: one ridge fit with an amplified ridge.

    .. math:: f_\infty(x) = k(x)^\top \Bigl(K + \frac{\lambda}{\alpha} I\Bigr)^{-1} y

    Args:
        kernel: ``[n, n]``, symmetric and positive semi-definite.
        targets: ``[n, c]``.
        ridge: at least zero.
        weight: of the ground truth, in (0, 1]; at 0 the limit is zero, and no ridge gives it.

    Raises:
        ValueError: for a weight outside (0, 1], and as :func:`~jaxdistill.theory.ridge_fit`.

    Example:
        >>> limit(jnp.eye(1), jnp.array([[8.0]]), 1.0, 0.5).fitted.round(4).tolist()
        [[2.6667]]
    """
    _checks.limit_weight(weight)
    _checks.at_least_zero(ridge=ridge)
    (wide,) = widen(kernel)
    ridge, weight = (jnp.asarray(value).astype(wide.dtype) for value in (ridge, weight))
    return ridge_fit(kernel, targets, ridge / weight)


def optimal_weight(
    targets: jax.Array, first: jax.Array, distilled: jax.Array, *, clip: bool = True
) -> Weight:
    r"""The best weight of the ground truth, from predictions of two fits.

    At every point the student with weight :math:`\alpha` predicts
    :math:`\alpha f_1 + (1 - \alpha) f_{PD}`, where :math:`f_{PD}` is fitted to its teacher's
    predictions alone. Its squared error is a parabola, with the minimum at

    .. math:: \alpha^* = 1 - \frac{\langle y - f_1, f_{PD} - f_1 \rangle}{\|f_{PD} - f_1\|^2}

    and the best weight in [0, 1] is the nearest. This is exact for ridge fits, and for nets as far
    as they are linear in their parameters; there the two fits cost one extra training.

    **Never on the targets that were fitted.** In every direction the first fit is between the other
    one and the targets (:math:`1 - ab \ge a - ab`), so on them the minimum is at 1 or beyond,
    whatever the noise: the estimate says nothing.

    Args:
        targets: held-out (or noise-free) targets, any shape.
        first: predictions of the fit to the ground truth alone, of the same shape.
        distilled: predictions of the fit to the teacher alone, of the same shape.
        clip: whether ``weight`` is kept in [0, 1].

    Returns:
        A :class:`Weight`. Where the two fits agree to rounding, every weight is as good, and it is
        1.

    Raises:
        ValueError: if the shapes differ or values are not finite.

    Example:
        >>> best = optimal_weight(jnp.array([1.0]), jnp.array([2.0]), jnp.array([0.0]))
        >>> float(best.weight), float(best.error)
        (0.5, 0.0)
    """
    same_shape(targets=targets, first=first, distilled=distilled)
    _checks.finite(targets=targets, first=first, distilled=distilled)
    targets, first, distilled = widen(targets, first, distilled)
    return _optimal_weight(targets, first, distilled, clip)


def chosen_path(
    kernel: jax.Array,
    targets: jax.Array,
    ridge: Any,
    cross: jax.Array,
    validation: jax.Array,
    *,
    steps: int,
    clip: bool = True,
) -> Chosen:
    """Self-distillation with the best weight at every step, from one factorisation and one solve a
    step.

    At every step the error on the validation targets is at most that of the first fit.

    Args:
        kernel: ``[n, n]``, symmetric and positive semi-definite.
        targets: ``[n, c]``.
        ridge: at least zero.
        cross: ``[m, n]``, the kernel of the validation points with the others.
        validation: ``[m, c]``, their targets.
        steps: how many, counting the first fit.
        clip: whether weights are kept in [0, 1].

    Raises:
        ValueError: if shapes do not fit, for fewer than 1 step; and, where values can be read, as
            :func:`path`.

    Example:
        >>> kernel, targets = jnp.eye(1), jnp.array([[8.0]])
        >>> chosen = chosen_path(kernel, targets, 1.0, kernel, jnp.array([[3.0]]), steps=2)
        >>> chosen.weights.tolist(), chosen.errors.tolist()
        ([1.0, 0.5], [1.0, 0.0])
    """
    kernel, targets, ridge = _checks.fit_inputs(kernel, targets, ridge)
    if jnp.ndim(cross) != 2 or jnp.shape(cross)[1] != kernel.shape[0]:
        raise ValueError(f"cross must be [m, {kernel.shape[0]}], got shape {jnp.shape(cross)}")
    _checks.target_shape(validation, jnp.shape(cross)[0], "validation")
    if jnp.shape(validation)[1] != targets.shape[1]:
        raise ValueError(
            f"validation must have the {targets.shape[1]} outputs of targets, got shape "
            f"{jnp.shape(validation)}"
        )
    _checks.finite(cross=cross, validation=validation)
    cross, validation = (jnp.asarray(x).astype(kernel.dtype) for x in (cross, validation))
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, got {steps}")
    return _chosen_path(kernel, targets, ridge, cross, validation, steps, clip)


def _optimal_weight(
    targets: jax.Array, first: jax.Array, distilled: jax.Array, clip: bool
) -> Weight:
    gap = distilled - first
    curvature = jnp.sum(jnp.square(gap))
    size = jnp.sum(jnp.square(first)) + jnp.sum(jnp.square(distilled))
    same = curvature <= (8 * float(jnp.finfo(gap.dtype).eps)) ** 2 * size
    across = jnp.sum((targets - first) * gap)
    free = 1 - jnp.where(same, 0, across / jnp.where(same, 1, curvature))
    weight = jnp.clip(free, 0, 1) if clip else free
    error = jnp.sum(jnp.square(targets - first - (1 - weight) * gap))
    return Weight(weight, free, error, curvature)


@jax.jit
def _path(kernel: jax.Array, targets: jax.Array, ridge: jax.Array, weights: jax.Array) -> Fit:
    def run(fit):
        def step(before, weight):
            found = fit(weight * targets + (1 - weight) * before)
            return found.fitted, found

        return jax.lax.scan(step, targets, weights)[1]

    return with_solver(kernel, ridge, run)


@functools.partial(jax.jit, static_argnames=("steps", "clip"))
def _chosen_path(
    kernel: jax.Array,
    targets: jax.Array,
    ridge: jax.Array,
    cross: jax.Array,
    validation: jax.Array,
    steps: int,
    clip: bool,
) -> Chosen:
    def run(fit):
        first = fit(targets)
        guided = predict(cross, first.coefficients)
        error = jnp.sum(jnp.square(validation - guided))

        def step(before, _):
            alone = fit(before)
            found = _optimal_weight(validation, guided, predict(cross, alone.coefficients), clip)
            mixed = jax.tree.map(
                lambda x, y: found.weight * x + (1 - found.weight) * y, first, alone
            )
            return mixed.fitted, Chosen(mixed, found.weight, found.error)

        start = Chosen(first, jnp.ones_like(error), error)
        rest = jax.lax.scan(step, first.fitted, length=steps - 1)[1]
        return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), start, rest)

    return with_solver(kernel, ridge, run)
