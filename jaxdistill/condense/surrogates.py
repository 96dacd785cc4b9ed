r"""What makes a synthetic batch like a real one without training on it: gradients, means of
features, maps of attention."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.losses.numerics import l2_normalise, safe_norm

Distance = Literal["rows", "cosine", "squared"]


def gradient_distance(synthetic: Any, real: Any, kind: Distance = "rows") -> jax.Array:
    r"""The distance of two gradients of the same parameters.

    .. math:: \sum_W \sum_o \Bigl(1 - \frac{a_{W,o} \cdot b_{W,o}}
        {\|a_{W,o}\| \|b_{W,o}\| + 10^{-6}}\Bigr)

    over all kernels W, dense and of convolutions, and the weights of each of their outputs o;
    biases and norms do not count.

    Args:
        synthetic: a tree of gradients; outputs are on the last axis of each kernel.
        real: the same.
        kind: ``"rows"`` as above; ``"cosine"``, one minus the cosine of the whole; ``"squared"``,
            the sum of squared differences, all parameters counting for both.

    Returns:
        A scalar.

    Raises:
        ValueError: for an unknown kind.

    Example:
        >>> one, other = {"w": jnp.eye(2)}, {"w": -jnp.eye(2)}
        >>> float(gradient_distance(one, other)), float(gradient_distance(one, other, "squared"))
        (4.0, 8.0)

    References:
        Zhao, Mopuri, Bilen, Dataset Condensation with Gradient Matching, ICLR 2021
    """
    if kind not in get_args(Distance):
        raise ValueError(unknown("distance of gradients", kind, get_args(Distance)))
    pairs = list(zip(jax.tree.leaves(synthetic), jax.tree.leaves(real), strict=True))
    if kind == "squared":
        return sum((jnp.square(a - b).sum() for a, b in pairs), start=jnp.zeros(()))
    if kind == "cosine":
        whole, other = (jnp.concatenate([x.ravel() for x in side]) for side in zip(*pairs))  # noqa: B905
        return 1 - whole @ other / (safe_norm(whole) * safe_norm(other) + 1e-6)

    def rows(a, b):
        a, b = (x.reshape(-1, x.shape[-1]) for x in (a, b))
        norms = safe_norm(a, axis=0) * safe_norm(b, axis=0)
        return (1 - (a * b).sum(0) / (norms + 1e-6)).sum()

    kernels = [(a, b) for a, b in pairs if a.ndim in (2, 4)]
    return sum((rows(a, b) for a, b in kernels), start=jnp.zeros(()))


def mean_distance(synthetic: jax.Array, real: jax.Array) -> jax.Array:
    r"""The squared distance of the means of features, summed over classes.

    Args:
        synthetic: ``[classes, n, ...]``.
        real: ``[classes, m, ...]``.

    Returns:
        A scalar.

    Example:
        >>> float(mean_distance(jnp.zeros((3, 1, 2)), jnp.ones((3, 5, 2))))
        6.0

    References:
        Zhao and Bilen, Dataset Condensation with Distribution Matching, WACV 2023
    """
    return jnp.square(synthetic.mean(1) - real.mean(1)).sum()


def attention_maps(feature: jax.Array, power: float = 1.0) -> jax.Array:
    r"""Where a net looks: :math:`\sum_c |F_c|^p` over the pixels, of length one.

    Args:
        feature: ``[..., H, W, C]``, any leading axes.
        power: p.

    Returns:
        ``[..., H * W]``.

    References:
        Zagoruyko and Komodakis, ICLR 2017; Sajedi et al., DataDAM, ICCV 2023
    """
    size = jnp.abs(feature)
    maps = (size if power == 1.0 else size**power).sum(-1)
    return l2_normalise(maps.reshape(*maps.shape[:-2], -1))
