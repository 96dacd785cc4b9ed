"""Closed forms of distillation, which the code that trains must agree with.

Pure functions of arrays that need nothing but JAX: kernels and their matrices over devices, ridge
fits that stay accurate where kernels are singular, repeated self-distillation from one
factorisation, and what others proved about distilling linear models. ``docs/theory.md`` lists the
statements. :mod:`jaxdistill.theory.machines`, fits as nets and distillers, is imported by itself.

A kernel is ``[n, n]``, targets are ``[n, c]``, the ridge is never divided by n, and a weight is
always that of the ground truth. All is float32 or wider (float64 stays float64), products are at
the highest precision. Shapes are checked always, values (a kernel that is symmetric and positive
semi-definite, a ridge that is not negative) where they can be read: outside of ``jax.jit``.
"""

from __future__ import annotations

from jaxdistill.theory.kernels import gram, linear, matern, polynomial, rbf
from jaxdistill.theory.multi_step import (
    MultiStep,
    data_centric,
    distribution_centric,
    several_steps,
    wiener_filter,
)
from jaxdistill.theory.neighbours import (
    NoisyLabels,
    Rounds,
    constrained_rounds,
    effective_logits,
    guaranteed_rounds,
    linear_student,
    multiplier_bounds,
    noisy_labels,
)
from jaxdistill.theory.neural_kernels import empirical_ntk, nngp, ntk
from jaxdistill.theory.ridge import (
    Fit,
    Spectrum,
    generalised_cross_validation,
    leave_one_out,
    predict,
    ridge_fit,
    spectral_fit,
    spectrum,
)
from jaxdistill.theory.self_distillation import (
    Chosen,
    Weight,
    chosen_path,
    fit_at,
    limit,
    optimal_weight,
    path,
)
from jaxdistill.theory.step_filters import (
    filter_at,
    filter_ratios,
    filters,
    first_fit_filter,
    limit_filter,
    limit_rate,
    polynomial_coefficients,
    weights_of,
)

__all__ = [
    "Chosen",
    "Fit",
    "MultiStep",
    "NoisyLabels",
    "Rounds",
    "Spectrum",
    "Weight",
    "chosen_path",
    "constrained_rounds",
    "data_centric",
    "distribution_centric",
    "effective_logits",
    "empirical_ntk",
    "filter_at",
    "filter_ratios",
    "filters",
    "first_fit_filter",
    "fit_at",
    "generalised_cross_validation",
    "gram",
    "guaranteed_rounds",
    "leave_one_out",
    "limit",
    "limit_filter",
    "limit_rate",
    "linear",
    "linear_student",
    "matern",
    "multiplier_bounds",
    "nngp",
    "noisy_labels",
    "ntk",
    "optimal_weight",
    "path",
    "polynomial",
    "polynomial_coefficients",
    "predict",
    "rbf",
    "ridge_fit",
    "several_steps",
    "spectral_fit",
    "spectrum",
    "weights_of",
    "wiener_filter",
]
