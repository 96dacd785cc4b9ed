r"""Mixtures of Gaussians as teachers: their denoiser, score and velocity are exact at all times.

On a path :math:`x_t = \alpha x_0 + \sigma \epsilon` a mixture :math:`\sum_k w_k N(m_k, C_k)` stays
one, of :math:`N(\alpha m_k, \alpha^2 C_k + \sigma^2 I)`, so that

.. math:: E[x_0 \mid x] = \sum_k r_k(x) \bigl(m_k + \alpha C_k (\alpha^2 C_k + \sigma^2 I)^{-1}
    (x - \alpha m_k)\bigr)

with :math:`r_k` the posterior of the components. Every gap between a sampler that was distilled
from such a teacher and the mixture itself is the sampler's own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.losses.numerics import HIGHEST, widen
from jaxdistill.samplers.guidance import guided
from jaxdistill.samplers.paths import Path, edm, over
from jaxdistill.settings import Count, Finite, Natural, Positive


class Mixture(NamedTuple):
    """A mixture of K Gaussians over D numbers, the components' covariances by their axes.

    Attributes:
        weights: ``[K]``, which sum to 1.
        means: ``[K, D]``.
        variances: ``[K, D]``, along the axes of each component.
        axes: ``[K, D, D]``, the axes as columns.
        labels: int ``[K]``, the class of each component.
    """

    weights: jax.Array
    means: jax.Array
    variances: jax.Array
    axes: jax.Array
    labels: jax.Array

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(np.max(np.asarray(self.labels))) + 1


def mixture(weights: Any, means: Any, covariances: Any, labels: Any = None) -> Mixture:
    """A mixture from its moments.

    Args:
        weights: ``[K]``, positive; they are divided by their sum.
        means: ``[K, D]``.
        covariances: ``[K, D, D]``, or ``[K]`` for variances that are the same in all directions.
        labels: the class of each component, its number by default.

    Raises:
        ValueError: for shapes that do not fit, weights that are not positive, and covariances that
            are not positive semi-definite.
    """
    # On the host in float64: this is done once, and an eigendecomposition wants all digits.
    weights, means, covariances = (np.asarray(x, np.float64) for x in (weights, means, covariances))
    if means.ndim != 2 or weights.shape != means.shape[:1]:
        raise ValueError(f"weights {weights.shape} and means {means.shape} do not fit")
    count, width = means.shape
    if covariances.shape == (count,):
        covariances = covariances[:, None, None] * np.eye(width)
    if covariances.shape != (count, width, width):
        raise ValueError(f"covariances {covariances.shape} do not fit means {means.shape}")
    if not (weights > 0).all():
        raise ValueError(f"weights must be positive, got {weights}")
    variances, axes = np.linalg.eigh(covariances)
    if variances.min() < -1e-9 * max(variances.max(), 1e-30):
        raise ValueError(f"a covariance has the negative eigenvalue {variances.min()}")
    labels = np.arange(count) if labels is None else np.asarray(labels)
    if labels.shape != (count,):
        raise ValueError(f"labels {labels.shape} are not one a component, of which are {count}")
    return Mixture(
        jnp.asarray(weights / weights.sum()),
        jnp.asarray(means),
        jnp.asarray(np.maximum(variances, 0)),
        jnp.asarray(axes),
        jnp.asarray(labels, jnp.int32),
    )


def ring(
    *,
    modes: Count = 8,
    radius: Positive = 0.7,
    deviation: Positive = 0.07,
    classes: Natural = 0,
    center: tuple[Finite, Finite] = (0.0, 0.0),
) -> Mixture:
    """Equal round Gaussians on a circle, two numbers a point.

    With the defaults the standard deviation of each number is 0.5.

    Args:
        modes: how many.
        radius: of the circle.
        deviation: standard deviation of each in every direction.
        classes: into how many classes neighbouring modes are grouped; 0 for one per mode.
        center: of the circle.

    Raises:
        ValueError: for more classes than modes.

    Example:
        >>> ring(modes=4, classes=2).labels.tolist()
        [0, 0, 1, 1]
    """
    if classes > modes:
        raise ValueError(f"classes={classes} share out {modes} modes: give {modes} or less")
    angles = 2 * np.pi * np.arange(modes) / modes
    means = radius * np.stack([np.cos(angles), np.sin(angles)], 1) + np.asarray(center)
    labels = np.arange(modes) * (classes or modes) // modes
    return mixture(np.full(modes, 1 / modes), means, np.full(modes, deviation**2), labels)


def fitted(
    points: Any, components: int, *, labels: Any = None, floor: Positive = 1e-3, seed: int = 0
) -> Mixture:
    """A mixture fitted to data by scikit-learn, with a full covariance for each component.

    Args:
        points: ``[n, ...]``; all axes but the first are flattened.
        components: how many, for each class where there are labels.
        labels: ``[n]``, classes; components are then fitted class by class.
        floor: added to all variances.
        seed: of the fit.

    Raises:
        ValueError: for more components than points.
    """
    from sklearn.mixture import GaussianMixture

    points = np.asarray(points, np.float64).reshape(len(points), -1)
    groups = np.zeros(len(points), int) if labels is None else np.asarray(labels)
    parts = []
    for label in np.unique(groups):
        own = points[groups == label]
        found: Any = GaussianMixture(components, reg_covar=floor, random_state=seed).fit(own)
        share = len(own) / len(points)
        parts.append((share * found.weights_, found.means_, found.covariances_))
    weights, means, covariances = (np.concatenate(each) for each in zip(*parts, strict=True))
    classes = np.repeat(np.arange(len(parts)), components)
    return mixture(weights, means, covariances, classes)


def draw(
    key: jax.Array, source: Mixture, count: int, label: Any = None, *, even: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Points of a mixture.

    Args:
        key: a random key.
        source: the mixture.
        count: n.
        label: ``[n]`` or one, of which classes; of all if it is None or -1.
        even: whether the components have their shares exactly, up to rounding, in order: less noise
            where the points represent the density itself. Not with a label an example.

    Returns:
        The points ``[n, D]``, and from which component each is, ``[n]``.
    """
    first, second = jax.random.split(key)
    logits = jnp.broadcast_to(jnp.log(source.weights), (count, len(source.weights)))
    logits = _of_class(logits, source, label)
    if even:
        below = jnp.cumsum(jax.nn.softmax(logits[0]))
        place = (jnp.arange(count) + 0.5) / count
        chosen = jnp.searchsorted(below, place.astype(below.dtype))
        chosen = jnp.minimum(chosen, len(source.weights) - 1)
    else:
        chosen = jax.random.categorical(first, logits)
    normal = jax.random.normal(second, (count, source.means.shape[1]), source.means.dtype)
    scaled = jnp.sqrt(source.variances)[chosen] * normal
    turned = jnp.einsum("nij,nj->ni", source.axes[chosen], scaled, precision=HIGHEST)
    return source.means[chosen] + turned, chosen


def denoise(
    source: Mixture,
    x: jax.Array,
    t: jax.Array | float,
    label: Any = None,
    *,
    path: Path | None = None,
) -> jax.Array:
    r"""The exact :math:`E[x_0 \mid x_t]`.

    Args:
        source: the mixture.
        x: ``[B, ...]`` with D numbers each.
        t: ``[B]`` or one; on the path :func:`~jaxdistill.samplers.edm`, if no other is given, the
            level of the noise.
        label: ``[B]`` or one: the class that is known, -1 or None where none is.
        path: on which.

    Returns:
        Of the shape of ``x``, float32 or wider; finite however far from all components x lies, and
        without noise x itself where no covariance is singular.

    Example:
        >>> one = mixture([1.0], [[0.0]], [1.0])
        >>> denoise(one, jnp.array([[2.0]]), 1.0).tolist()
        [[1.0]]
    """
    (x,) = widen(x)
    flat = x.reshape(len(x), -1)
    path = path or edm()
    weights, means, variances, axes = (part.astype(flat.dtype) for part in source[:4])
    source = Mixture(weights, means, variances, axes, source.labels)
    alpha, sigma = (c(over(t, flat)) for c in (path.alpha, path.sigma))
    alpha, sigma = (jnp.broadcast_to(c, (len(flat), 1))[..., None] for c in (alpha, sigma))
    # Differences along the axes of each component, [B, K, D].
    gaps = flat[:, None, :] - alpha * source.means[None]
    along = jnp.einsum("bkd,kde->bke", gaps, source.axes, precision=HIGHEST)
    spread = alpha**2 * source.variances[None] + sigma**2
    safe = jnp.where(spread > 0, spread, 1)
    squares = jnp.where(spread > 0, along**2 / safe, 0)
    logits = jnp.log(source.weights)[None] - 0.5 * (squares + jnp.log(safe)).sum(-1)
    share = jax.nn.softmax(_of_class(logits, source, label))
    shrunk = alpha * source.variances[None] / safe * along
    back = jnp.einsum("bke,kde->bkd", shrunk, source.axes, precision=HIGHEST)
    data = jnp.einsum("bk,bkd->bd", share, source.means[None] + back, precision=HIGHEST)
    return data.reshape(x.shape)


def guided_denoise(
    source: Mixture, x: jax.Array, t: Any, label: Any, scale: Any, *, path: Path | None = None
) -> jax.Array:
    """The exact conditional denoiser guided away from the exact unconditional one."""
    conditional = denoise(source, x, t, label, path=path)
    return guided(conditional, denoise(source, x, t, path=path), scale)


def _of_class(logits: jax.Array, source: Mixture, label: Any) -> jax.Array:
    if label is None:
        return logits
    label = jnp.broadcast_to(label, logits.shape[:1])[:, None]
    return jnp.where((label == source.labels[None]) | (label < 0), logits, -jnp.inf)
