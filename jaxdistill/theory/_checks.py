"""What the closed forms ask of their inputs, each as a ValueError that says which was violated.

Shapes are checked always, under ``jax.jit`` when it traces; values only where arrays are concrete.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxdistill.losses.numerics import widen


def concrete(*arrays: Any) -> bool:
    """Whether the values of all arrays can be read."""
    return not any(isinstance(array, Tracer) for array in arrays)


def finite(**named: Any) -> None:
    """Raises a ValueError that names an array with a NaN or an infinity."""
    for name, array in named.items():
        if not concrete(array):
            continue
        # Without this even what is known would be traced inside another function's trace.
        with jax.ensure_compile_time_eval():
            bad = int(jnp.sum(~jnp.isfinite(array)))
        if bad:
            raise ValueError(f"{name} must be finite, {bad} of {jnp.size(array)} entries are not")


def scalar(**named: Any) -> None:
    """Raises a ValueError unless every argument is a finite number."""
    for name, value in named.items():
        if jnp.ndim(value):
            raise ValueError(f"{name} must be one number, got shape {jnp.shape(value)}")
        if concrete(value) and not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {float(value)}")


def at_least_zero(**named: Any) -> None:
    """Raises a ValueError unless every argument is a finite number that is not negative."""
    scalar(**named)
    for name, value in named.items():
        if concrete(value) and value < 0:
            raise ValueError(f"{name} must be at least 0, got {float(value)}")


def positive(**named: Any) -> None:
    """Raises a ValueError unless every argument is a finite number above zero."""
    scalar(**named)
    for name, value in named.items():
        if concrete(value) and value <= 0:
            raise ValueError(f"{name} must be above 0, got {float(value)}")


def spectrum_values(values: Any) -> None:
    """Raises a ValueError unless eigenvalues are ``[n]``, finite and not negative."""
    if jnp.ndim(values) != 1 or not jnp.size(values):
        raise ValueError(
            f"eigenvalues must be [n] with n at least 1, got shape {jnp.shape(values)}"
        )
    finite(eigenvalues=values)
    if concrete(values) and smallest(values) < 0:
        raise ValueError(
            f"eigenvalues must be at least 0, the smallest is {smallest(values)}: take those of "
            "spectrum(kernel), which clips what rounding made negative"
        )


def smallest(array: Any) -> float:
    """The smallest entry of an array whose values can be read."""
    return float(np.min(np.asarray(array)))


def shares(**named: Any) -> None:
    """Raises a ValueError unless all entries of every array are in [0, 1]."""
    for name, array in named.items():
        if concrete(array) and jnp.size(array):
            low, high = np.min(np.asarray(array)), np.max(np.asarray(array))
            if low < 0 or high > 1:
                raise ValueError(f"{name} must be in [0, 1], they range from {low} to {high}")


def square(kernel: Any) -> None:
    """Raises a ValueError unless a kernel is ``[n, n]``."""
    shape = jnp.shape(kernel)
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        raise ValueError(f"kernel must be [n, n] with n at least 1, got shape {shape}")


def positive_semidefinite(kernel: jax.Array) -> None:
    """Raises a ValueError unless a kernel is ``[n, n]``, finite, symmetric and positive
    semi-definite.

    Both to rounding: an asymmetry, or an eigenvalue below zero, of a tenth of the root of the
    machine's epsilon (or ``8 n`` times the epsilon itself, for the eigenvalue, if that is more)
    over the largest entry is let pass. Costs one Cholesky factorisation.
    """
    square(kernel)
    if not concrete(kernel):
        return
    with jax.ensure_compile_time_eval():
        bad, asymmetry, largest, slack, definite = (float(x) for x in _faults(kernel))
    if bad:
        raise ValueError(f"kernel must be finite, {int(bad)} of {kernel.size} entries are not")
    if asymmetry > 0.1 * float(jnp.finfo(kernel.dtype).eps) ** 0.5 * largest:
        raise ValueError(
            f"kernel must be symmetric: two opposite entries differ by {asymmetry:.3g}, the "
            f"largest entry is {largest:.3g}"
        )
    if not definite:
        raise ValueError(
            "kernel must be positive semi-definite: its smallest eigenvalue is below "
            f"-{slack:.3g}, which is more than rounding"
        )


def fit_inputs(kernel: Any, targets: Any, ridge: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Kernel ``[n, n]``, targets ``[n, c]`` and ridge in one wide dtype, once they are sound."""
    square(kernel)
    target_shape(targets, jnp.shape(kernel)[0])
    at_least_zero(ridge=ridge)
    finite(targets=targets)
    kernel, targets = widen(kernel, targets)
    positive_semidefinite(kernel)
    return kernel, targets, jnp.asarray(ridge).astype(kernel.dtype)


def target_shape(targets: Any, rows: int, name: str = "targets") -> None:
    """Raises a ValueError unless targets are ``[rows, c]``."""
    shape = jnp.shape(targets)
    if len(shape) != 2 or shape[0] != rows:
        hint = f": write {name}[:, None]" if len(shape) == 1 else ""
        raise ValueError(f"{name} must be [{rows}, c] beside the kernel, got shape {shape}{hint}")


def step_weights(weights: Any, steps: int | None, dtype: Any) -> jax.Array:
    """The weight of the ground truth at every step, ``[steps]``, from one number or an array."""
    shape = jnp.shape(weights)
    if len(shape) > 1 or shape == (0,):
        raise ValueError(f"weights must be one number or [steps], got shape {shape}")
    if not shape and steps is None:
        raise ValueError("one weight for all steps needs their number: give steps")
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be 1 or more, got {steps}")
    if shape and steps not in (None, shape[0]):
        raise ValueError(f"weights has {shape[0]} entries for {steps} steps")
    finite(weights=weights)
    return jnp.broadcast_to(jnp.asarray(weights).astype(dtype), shape or (steps,))


def limit_weight(weight: Any) -> None:
    """Raises a ValueError unless a weight is in (0, 1], where repeated fits converge to a ridge."""
    scalar(weight=weight)
    if concrete(weight) and not 0 < weight <= 1:
        raise ValueError(
            f"the limit of infinitely many steps needs a weight in (0, 1], got {float(weight)}"
            + (": without ground truth the fits shrink to zero" if weight == 0 else "")
        )


@jax.jit
def _faults(kernel: jax.Array) -> tuple[jax.Array, ...]:
    info, rows = jnp.finfo(kernel.dtype), kernel.shape[0]
    largest = jnp.max(jnp.abs(kernel))
    slack = max(8 * rows * float(info.eps), 0.1 * float(info.eps) ** 0.5) * largest + info.tiny
    lower = jax.lax.linalg.cholesky(add_ridge(kernel, slack), symmetrize_input=False)
    definite = jnp.isfinite(jnp.diagonal(lower)).all()
    bad = jnp.sum(~jnp.isfinite(kernel))
    return bad, jnp.max(jnp.abs(kernel - kernel.T)), largest, slack, definite


def add_ridge(kernel: jax.Array, ridge: jax.Array) -> jax.Array:
    """``kernel + ridge I`` without an identity matrix in memory."""
    diagonal = jnp.arange(kernel.shape[0], dtype=jnp.int32)
    return kernel.at[diagonal, diagonal].add(ridge)
