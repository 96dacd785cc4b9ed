"""Geometry of features: pooling of different maps, distances, kernels, checks of shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.losses.numerics import (
    clear,
    einsum,
    matmul,
    safe_sqrt,
    same_batch,
    widen,
)


def same_features(student: Any, teacher: Any, *, axis: int | tuple[int, ...] = -1) -> None:
    """Raises a ValueError with both shapes, and the projector that helps, unless they are equal."""
    shapes = jnp.shape(student), jnp.shape(teacher)
    if shapes[0] == shapes[1]:
        return
    message = f"student and teacher features must have one shape, got {shapes[0]} and {shapes[1]}"
    channel = axis if isinstance(axis, int) else -1
    if (
        len(shapes[0]) == len(shapes[1])
        and shapes[0]
        and -len(shapes[0]) <= channel < len(shapes[0])
    ):
        others = [tuple(np.delete(shape, channel)) for shape in shapes]
        if others[0] == others[1]:
            message += (
                f"; a linear projector from width {shapes[0][channel]} to {shapes[1][channel]} "
                "on the student would fit"
            )
        else:
            message += "; a projector that also resizes the grid would fit"
    raise ValueError(message)


def choice(kind: str, name: str, options: dict[str, Any]) -> Any:
    """The option of that name; a ValueError names the nearest."""
    if name not in options:
        raise ValueError(unknown(kind, name, options))
    return options[name]


def mean_over(axis: int | tuple[int, ...], x: jax.Array, over: str = "mean") -> jax.Array:
    """The mean or the sum over some axes."""
    return choice("reduction", over, {"mean": jnp.mean, "sum": jnp.sum})(x, axis=axis)


def smooth_absolute(gap: jax.Array, beta: Any = 1.0) -> jax.Array:
    """``gap^2 / (2 beta)`` where ``|gap| < beta``, ``|gap| - beta / 2`` beyond."""
    size, beta = jnp.abs(gap), jnp.asarray(beta).astype(gap.dtype)
    near = size < beta
    inside = jnp.where(near, gap, 0)
    return jnp.where(near, inside * inside / (2 * beta), size - beta / 2)


def elementwise(gap: jax.Array, distance: str, beta: Any = 1.0) -> jax.Array:
    """The distance of that name, element by element."""
    table: dict[str, Callable] = {
        "l2": jnp.square,
        "l1": jnp.abs,
        "smooth_l1": lambda g: smooth_absolute(g, beta),
    }
    return choice("distance", distance, table)(gap)


def flat(x: jax.Array) -> jax.Array:
    """``[B, ...]`` as ``[B, D]``."""
    return x.reshape(x.shape[0], -1)


def maps(x: jax.Array, name: str) -> jax.Array:
    """Checks that features are maps ``[B, H, W, C]``."""
    if jnp.ndim(x) != 4:
        raise ValueError(f"{name} must be maps [B, H, W, C], got shape {jnp.shape(x)}")
    return x


def _bins(size: int, bins: int) -> np.ndarray:
    """Rows that average ``size`` positions into ``bins``; adaptive pooling lets bins overlap."""
    edges = np.arange(bins + 1) * size
    start, stop = edges[:-1] // bins, -(-edges[1:] // bins)
    at = np.arange(size)
    inside = (at >= start[:, None]) & (at < stop[:, None])
    return inside / inside.sum(axis=1, keepdims=True)


def pool(x: jax.Array, height: int, width: int, how: str = "average") -> jax.Array:
    """``[B, H, W, C]`` pooled to ``[B, height, width, C]`` as torch's adaptive pooling does."""
    if x.shape[1:3] == (height, width):
        return x
    rows, columns = _bins(x.shape[1], height), _bins(x.shape[2], width)
    if how == "average":
        return einsum(
            "ph,bhwc,qw->bpqc", jnp.asarray(rows, x.dtype), x, jnp.asarray(columns, x.dtype)
        )
    if how != "max":
        raise ValueError(unknown("pooling", how, ("average", "max")))
    x = jnp.stack([jnp.max(x[:, np.flatnonzero(row)], axis=1) for row in rows], axis=1)
    return jnp.stack([jnp.max(x[:, :, np.flatnonzero(row)], axis=2) for row in columns], axis=2)


def to_smaller_grid(
    a: jax.Array, b: jax.Array, how: str = "average"
) -> tuple[jax.Array, jax.Array]:
    """Two batches of maps, each pooled to the smaller height and width of the two."""
    height, width = min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2])
    return pool(a, height, width, how), pool(b, height, width, how)


def square_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """``[N, M]`` squared distances from differences: equal rows are exactly zero apart."""
    return jnp.sum(jnp.square(x[:, None, :] - y[None, :, :]), axis=-1)


def pairs(where: jax.Array | None, size: int) -> jax.Array:
    """``[N, N]``, true where both rows count."""
    if where is None:
        return jnp.ones((size, size), bool)
    if where.shape != (size,):
        raise ValueError(f"where {where.shape} must have one entry per row, ({size},)")
    counts = where.astype(bool)
    return counts[:, None] & counts[None, :]


def off_diagonal(where: jax.Array | None, size: int) -> jax.Array:
    """``[N, N]``, true where both rows count and are not the same."""
    return pairs(where, size) & ~jnp.eye(size, dtype=bool)


def valid_first(where: jax.Array | None, size: int) -> jax.Array:
    """The order that brings the rows that count to the front, as they come."""
    if where is None:
        return jnp.arange(size)
    return jnp.argsort(jnp.where(where.astype(bool), 0, 1), stable=True)


def kernel_matrix(
    x: jax.Array,
    y: jax.Array,
    kernel: str,
    *,
    degree: int = 2,
    offset: float = 0.0,
    bandwidth: Any = 1.0,
) -> jax.Array:
    """``k(x_i, y_j)`` over the last two axes ``[..., N, D]``: linear, polynomial or Gaussian.

    The Gaussian kernel is ``exp(-|x - y|^2 / (2 bandwidth^2))``.
    """
    if kernel == "rbf":
        gaps = jnp.sum(jnp.square(x[..., :, None, :] - y[..., None, :, :]), axis=-1)
        return jnp.exp(-gaps / (2 * jnp.square(jnp.asarray(bandwidth).astype(x.dtype))))
    products = matmul(x, jnp.swapaxes(y, -1, -2))
    if kernel == "linear":
        return products
    if kernel == "polynomial":
        return (products + offset) ** degree
    raise ValueError(unknown("kernel", kernel, ("linear", "polynomial", "rbf")))


def frobenius(x: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """The root of the sum of squares, with gradient zero at zero."""
    return safe_sqrt(jnp.sum(jnp.square(x), axis=axis))


def batch_rows(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Both sides as wide ``[B, D]``, with zeros in the rows that do not count."""
    same_batch(student=student, teacher=teacher)
    if where is not None and where.shape != jnp.shape(student)[:1]:
        raise ValueError(
            f"where {where.shape} must have one entry per row, {jnp.shape(student)[:1]}"
        )
    student, teacher = widen(student, teacher)
    return flat(clear(student, where)), flat(clear(teacher, where))
