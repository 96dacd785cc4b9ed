r"""Kernels of two sets of points, and their Gram matrices in blocks and over devices.

A kernel is a function ``(x [n, ...], others [m, ...]) -> [n, m]``; axes after the first are
flattened. Fix its numbers with ``functools.partial(rbf, gamma=80.0)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdistill.losses._geometry import choice, square_distances
from jaxdistill.losses.numerics import matmul, safe_sqrt, widen
from jaxdistill.settings import Among, Count, NonNegative, Positive
from jaxdistill.theory import _checks

Kernel = Callable[[jax.Array, jax.Array], jax.Array]
Smoothness = Annotated[float, Among(0.5, 1.5, 2.5)]

# Compiled even where the caller is not, so that the differences of all pairs, [n, m, D], are summed
# as they arise and never held.
_square_distances = jax.jit(square_distances)


def linear(x: jax.Array, others: jax.Array | None = None) -> jax.Array:
    r"""The linear kernel :math:`k(x, y) = x \cdot y`.

    Args:
        x: points ``[n, ...]``.
        others: points ``[m, ...]`` of as many features, ``x`` by default.

    Returns:
        ``[n, m]``, float32 or wider, at the highest precision.

    Raises:
        ValueError: if the points have different numbers of features.

    Example:
        >>> linear(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0], [0.0, 1.0]])).tolist()
        [[11.0, 2.0]]
    """
    x, others = points(x, others)
    return matmul(x, others.T)


def polynomial(
    x: jax.Array,
    others: jax.Array | None = None,
    *,
    degree: Count = 2,
    scale: NonNegative = 1.0,
    offset: NonNegative = 1.0,
) -> jax.Array:
    r"""The polynomial kernel :math:`k(x, y) = (s\, x \cdot y + o)^p`.

    Args:
        x: points ``[n, ...]``.
        others: points ``[m, ...]`` of as many features, ``x`` by default.
        degree: p, 1 or more.
        scale: s.
        offset: o; positive semi-definite only if not negative.

    Returns:
        ``[n, m]``, float32 or wider.

    Raises:
        ValueError: for a degree below 1, a negative scale or offset, or points that do not fit.

    Example:
        >>> polynomial(jnp.array([[1.0]]), jnp.array([[2.0]]), degree=3).tolist()
        [[27.0]]
    """
    if degree < 1:
        raise ValueError(f"degree must be 1 or more, got {degree}")
    _checks.at_least_zero(scale=scale, offset=offset)
    products = linear(x, others)
    return (_as(scale, products) * products + _as(offset, products)) ** degree


def rbf(x: jax.Array, others: jax.Array | None = None, *, gamma: Positive = 1.0) -> jax.Array:
    r"""The Gaussian kernel :math:`k(x, y) = e^{-\gamma |x - y|^2}`.

    Distances come from differences, not from products, so that equal points are exactly zero
    apart in float32 too. A bandwidth h is :math:`\gamma = 1 / 2 h^2`.

    Args:
        x: points ``[n, ...]``.
        others: points ``[m, ...]`` of as many features, ``x`` by default.
        gamma: the inverse square of a length, above zero.

    Returns:
        ``[n, m]``, float32 or wider, in [0, 1].

    Raises:
        ValueError: for a gamma that is not positive, or points that do not fit.

    Example:
        >>> rbf(jnp.array([[0.0]]), jnp.array([[0.0], [1.0]]), gamma=2.0).round(4).tolist()
        [[1.0, 0.1353]]
    """
    _checks.positive(gamma=gamma)
    x, others = points(x, others)
    return jnp.exp(-_as(gamma, x) * _square_distances(x, others))


def matern(
    x: jax.Array,
    others: jax.Array | None = None,
    *,
    smoothness: Smoothness = 2.5,
    length: Positive = 1.0,
) -> jax.Array:
    r"""The Matern kernel of smoothness 1/2, 3/2 or 5/2, with :math:`r = |x - y| / \ell`.

    .. math:: e^{-r}, \qquad (1 + \sqrt 3 r) e^{-\sqrt 3 r}, \qquad
        (1 + \sqrt 5 r + \tfrac53 r^2) e^{-\sqrt 5 r}

    Args:
        x: points ``[n, ...]``.
        others: points ``[m, ...]`` of as many features, ``x`` by default.
        smoothness: 0.5, 1.5 or 2.5.
        length: :math:`\ell`, above zero.

    Returns:
        ``[n, m]``, float32 or wider, in [0, 1]. Where two points are equal its gradient is zero.

    Raises:
        ValueError: for another smoothness, a length that is not positive, or points that do not
            fit.

    Example:
        >>> matern(jnp.array([[0.0]]), jnp.array([[2.0]]), smoothness=0.5, length=2.0).round(4)
        Array([[0.3679]], dtype=float32)

    References:
        Rasmussen and Williams, `Gaussian Processes for Machine Learning
        <https://gaussianprocess.org/gpml>`_, 2006, section 4.2
    """
    forms: dict[str, Kernel] = {
        "0.5": lambda r, _: jnp.exp(-r),
        "1.5": lambda r, _: (1 + 3**0.5 * r) * jnp.exp(-(3**0.5) * r),
        "2.5": lambda r, square: (1 + 5**0.5 * r + 5 / 3 * square) * jnp.exp(-(5**0.5) * r),
    }
    form = choice("smoothness", str(float(smoothness)), forms)
    _checks.positive(length=length)
    x, others = points(x, others)
    square = _square_distances(x, others) / jnp.square(_as(length, x))
    return form(safe_sqrt(square), square)


def gram(
    kernel: Kernel,
    x: jax.Array,
    others: jax.Array | None = None,
    *,
    block: Count = 1024,
    sharding: NamedSharding | None = None,
) -> jax.Array:
    """A kernel's matrix block by block, so that what it needs on the way is of one block only.

    Args:
        kernel: ``(x [n, ...], others [m, ...]) -> [n, m]``.
        x: points ``[n, ...]``.
        others: points ``[m, ...]``, ``x`` by default.
        block: how many rows are computed at a time, on every device.
        sharding: where the matrix is to lie: every device computes its own tile. It must cut rows
            and columns evenly.

    Returns:
        ``[n, m]``, sharded as asked for.

    Raises:
        ValueError: for a block below 1, or rows or columns that the devices cannot share evenly.

    Example:
        >>> x = jnp.arange(5.0)[:, None]
        >>> bool((gram(rbf, x, block=2) == rbf(x)).all())
        True
        >>> mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
        >>> gram(rbf, x, sharding=NamedSharding(mesh, P("data"))).shape
        (5, 5)
    """
    if block < 1:
        raise ValueError(f"block must be 1 or more rows, got {block}")
    others = x if others is None else others

    def tile(x, others):
        rows = x.shape[0]
        if rows <= block:
            return kernel(x, others)

        # The last block begins early rather than end late: it writes some rows a second time, and
        # nothing needs to be padded or joined.
        def write(index, matrix):
            start = jnp.minimum(index * block, rows - block)
            part = jax.lax.dynamic_slice_in_dim(x, start, block)
            return jax.lax.dynamic_update_slice_in_dim(matrix, kernel(part, others), start, 0)

        dtype = jax.eval_shape(kernel, x[:block], others).dtype
        empty = jnp.zeros((rows, others.shape[0]), dtype)
        return jax.lax.fori_loop(0, -(-rows // block), write, empty)

    if sharding is None:
        return tile(x, others)
    rows, columns = (*sharding.spec, None, None)[:2]
    for name, size, axes in (("rows", x.shape[0], rows), ("columns", others.shape[0], columns)):
        parts = _devices(sharding, axes)
        if size % parts:
            raise ValueError(f"{size} {name} cannot be shared evenly by {parts} devices ({axes!r})")
    specs = P(rows), P(columns)
    mapped = jax.shard_map(
        tile,
        mesh=sharding.mesh,
        in_specs=specs,
        out_specs=P(rows, columns),
        check_vma=False,  # the loop begins with zeros that are the same everywhere
    )
    shardings = (NamedSharding(sharding.mesh, spec) for spec in specs)
    return jax.jit(mapped)(*jax.device_put((x, others), tuple(shardings)))


def points(x: jax.Array, others: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Two sets of points as ``[n, D]`` and ``[m, D]`` in one wide dtype."""
    others = x if others is None else others
    for name, array in (("x", x), ("others", others)):
        if jnp.ndim(array) < 2:
            raise ValueError(f"{name} must be points [n, ...], got shape {jnp.shape(array)}")
    x, others = (array.reshape(array.shape[0], -1) for array in widen(x, others))
    if x.shape[1] != others.shape[1]:
        raise ValueError(
            f"x and others must have as many features, got {x.shape[1]} and {others.shape[1]}"
        )
    return x, others


def _as(value: Any, array: jax.Array) -> jax.Array:
    return jnp.asarray(value).astype(array.dtype)


def _devices(sharding: NamedSharding, axes: Any) -> int:
    names = () if axes is None else (axes,) if isinstance(axes, str) else axes
    sizes = dict(sharding.mesh.shape)
    return math.prod(sizes[name] for name in names)
