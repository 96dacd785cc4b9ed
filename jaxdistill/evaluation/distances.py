r"""How far samples are from data: distances of two sets of points, and what features they need.

Points are ``[n, d]``: the samples themselves in few dimensions, else features of a net. Distances
of finite sets are above zero even for two sets of one distribution; what two sets of real data give
is the floor that any figure is to be read against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.losses.numerics import HIGHEST, widen
from jaxdistill.settings import Count, Natural, Positive


def sliced_wasserstein(
    samples: Any, data: Any, *, directions: Count = 256, seed: Natural = 0
) -> float:
    r"""The sliced Wasserstein distance, the root of the mean over directions of :math:`W_2^2`.

    Args:
        samples: ``[n, d]``.
        data: ``[n, d]``, as many.
        directions: how many random directions, the same for the same seed.
        seed: of the directions.

    Returns:
        A number in the units of the points, computed on the host: sorting is quicker there.

    Raises:
        ValueError: for sets of different shapes: their quantiles are compared one by one.

    References:
        Bonneel et al., Sliced and Radon Wasserstein Barycenters of Measures, 2015.

    Example:
        >>> points = jnp.array([[0.0, 0.0], [1.0, 0.0]])
        >>> sliced_wasserstein(points, points[::-1])
        0.0
    """
    if np.shape(samples) != np.shape(data):
        raise ValueError(
            f"samples {np.shape(samples)} and data {np.shape(data)} must have one shape"
        )
    ours, theirs = (np.asarray(x, np.float32) for x in _points(samples, data))
    lines = np.random.default_rng(seed).normal(size=(directions, ours.shape[1]))
    lines = (lines / np.linalg.norm(lines, axis=1, keepdims=True)).astype(np.float32)
    gaps = np.sort(lines @ ours.T, -1) - np.sort(lines @ theirs.T, -1)
    return float(np.sqrt(np.mean(np.square(gaps), dtype=np.float64)))


def modes(samples: jax.Array, means: jax.Array, deviation: float, weights: Any = None) -> dict:
    r"""How samples spread over the known modes of a density.

    Args:
        samples: ``[n, d]``.
        means: ``[K, d]``.
        deviation: the standard deviation of a mode in every direction.
        weights: ``[K]``, the true shares, equal by default.

    Returns:
        ``mode_variation``, :math:`\tfrac12 \sum_k |\hat w_k - w_k|` with :math:`\hat w` the shares
        of the samples by their nearest mode; ``mode_quality``, the share of samples that lie within
        three deviations of it; ``within_mode``, the root mean square of the distance of those to
        it, per dimension.

    Example:
        >>> found = modes(jnp.array([[0.1], [0.2], [5.0]]), jnp.array([[0.0], [1.0]]), 0.1)
        >>> {name: round(float(value), 3) for name, value in found.items()}
        {'mode_quality': 0.667, 'mode_variation': 0.167, 'within_mode': 0.158}
    """
    samples, means = _points(samples, means)
    count = len(means)
    wanted = jnp.full(count, 1 / count) if weights is None else jnp.asarray(weights)
    squares = _squares(samples, means)
    nearest = squares.min(1)
    shares = jax.nn.one_hot(squares.argmin(1), count).mean(0)
    inside = nearest <= (3 * deviation) ** 2
    spread = jnp.where(inside, nearest, 0).sum() / jnp.maximum(inside.sum(), 1)
    return {
        "mode_quality": inside.mean(),
        "mode_variation": jnp.abs(shares - wanted).sum() / 2,
        "within_mode": jnp.sqrt(spread / samples.shape[1]),
    }


def share_of_mode(samples: jax.Array, means: jax.Array, mode: int) -> jax.Array:
    """The share of samples ``[n, d]`` that lie nearer to one of the means ``[K, d]`` than to the
    others.

    Example:
        >>> float(share_of_mode(jnp.array([[0.1], [0.9]]), jnp.array([[0.0], [1.0]]), 1))
        0.5
    """
    samples, means = _points(samples, means)
    return (_squares(samples, means).argmin(1) == mode).mean()


def kernel_distance(
    samples: jax.Array, data: jax.Array, *, widths: Sequence[Positive] = (0.05, 0.2, 0.8)
) -> jax.Array:
    r"""The unbiased squared maximum mean discrepancy, a mean over Gaussian kernels.

    Args:
        samples: ``[n, d]``.
        data: ``[m, d]``.
        widths: h of :math:`e^{-|x - y|^2 / (2 h^2)}`.

    Returns:
        A scalar; below zero as often as above where both sets are of one distribution.

    Raises:
        ValueError: for fewer than two points in a set.

    References:
        Gretton et al., A Kernel Two-Sample Test, 2012, lemma 6.
    """
    samples, data = _points(samples, data)

    def kernel(x, y):
        squares = _squares(x, y)
        return jnp.mean(jnp.stack([jnp.exp(-squares / (2 * h**2)) for h in widths]), 0)

    return _unbiased(kernel, samples, data)


def kid(samples: jax.Array, data: jax.Array) -> jax.Array:
    r"""The kernel inception distance: the same with the kernel :math:`(x \cdot y / d + 1)^3`.

    Unbiased for any number of points, so it serves where there are too few for :func:`fid`.

    Args:
        samples: features ``[n, d]``.
        data: ``[m, d]``.

    References:
        Binkowski et al., Demystifying MMD GANs, 2018.
    """
    samples, data = _points(samples, data)

    def kernel(x, y):
        return (jnp.matmul(x, y.T, precision=HIGHEST) / x.shape[1] + 1) ** 3

    return _unbiased(kernel, samples, data)


def fid(samples: Any, data: Any) -> float:
    r"""The Fréchet distance of two Gaussians with the moments of the points.

    .. math:: |m_1 - m_2|^2 + \mathrm{tr}\bigl(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2}\bigr)

    It is biased by about 1/n: compare only figures with the same number of points, well above d.

    Args:
        samples: features ``[n, d]``.
        data: ``[m, d]``.

    Returns:
        A number, computed in float64 on the host.

    Raises:
        ValueError: for fewer than two points in a set, or points that are not finite.

    References:
        Heusel et al., GANs Trained by a Two Time-Scale Update Rule, 2017.

    Example:
        >>> round(fid([[0.0], [2.0]], [[3.0], [5.0]]), 6)
        9.0
    """
    ours, theirs = (np.asarray(x, np.float64) for x in (samples, data))
    _points(ours, theirs)
    if min(len(ours), len(theirs)) < 2:
        raise ValueError(f"fid needs two points and more, got {len(ours)} and {len(theirs)}")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError("fid needs finite points")
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (ours, theirs))
    values, axes = np.linalg.eigh(first)
    root = (axes * np.sqrt(np.maximum(values, 0))) @ axes.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    gap = np.square(ours.mean(0) - theirs.mean(0)).sum()
    return float(max(gap + np.trace(first) + np.trace(second) - 2 * cross, 0.0))


def precision_recall(samples: jax.Array, data: jax.Array, *, neighbours: Count = 3) -> dict:
    """Which share of the samples lies among the data, and of the data among the samples.

    A point lies among others if it is within the distance from one of them to its k-th neighbour.

    Args:
        samples: ``[n, d]``.
        data: ``[m, d]``.
        neighbours: k.

    Returns:
        ``precision`` and ``recall``, scalars.

    Raises:
        ValueError: for k that is not below the number of points.

    References:
        Kynkäänniemi et al., Improved Precision and Recall Metric, 2019.
    """
    samples, data = _points(samples, data)
    if not 1 <= neighbours < min(len(samples), len(data)):
        raise ValueError(
            f"neighbours must be at least 1 and below {min(len(samples), len(data))} points, "
            f"got {neighbours}"
        )

    def among(points, others):
        # The nearest of a point to its own set is itself.
        radii = -jax.lax.top_k(-_squares(others, others), neighbours + 1)[0][:, -1]
        return (_squares(points, others) <= radii[None]).any(1).mean()

    return {"precision": among(samples, data), "recall": among(data, samples)}


def _points(*sets: Any) -> tuple[jax.Array, ...]:
    for points in sets:
        if np.ndim(points) != 2:
            raise ValueError(f"points must be [n, d], got shape {np.shape(points)}")
    if len({np.shape(points)[1] for points in sets}) > 1:
        raise ValueError(f"points of different dimensions: {[np.shape(p) for p in sets]}")
    return widen(*sets)


def _squares(x: jax.Array, y: jax.Array) -> jax.Array:
    product = jnp.matmul(x, y.T, precision=HIGHEST)
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * product
    return jnp.maximum(squares, 0)


def _unbiased(kernel, x: jax.Array, y: jax.Array) -> jax.Array:
    if min(len(x), len(y)) < 2:
        raise ValueError(f"an unbiased distance needs two points a set, got {len(x)} and {len(y)}")

    def off_diagonal(points):
        matrix, count = kernel(points, points), len(points)
        return (matrix.sum() - jnp.trace(matrix)) / (count * (count - 1))

    return off_diagonal(x) + off_diagonal(y) - 2 * kernel(x, y).mean()
