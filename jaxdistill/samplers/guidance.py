"""Classifier-free guidance, and its scale as an input of a net.

A scale g is that of Imagen and of most code, ``unconditional + g * (conditional - unconditional)``:
1 is the conditional net as it is, 0 the unconditional one. Latent consistency models count
``w = g - 1``, see :func:`scale_of_weight`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxdistill.losses.numerics import widen
from jaxdistill.samplers.paths import over


def guided(
    conditional: jax.Array,
    unconditional: jax.Array,
    scale: jax.Array | float,
    *,
    t: jax.Array | float | None = None,
    interval: tuple[float, float] | None = None,
) -> jax.Array:
    """Two predictions of one kind combined, of the data, the noise, a velocity or a score.

    Args:
        conditional: ``[B, ...]``.
        unconditional: of the same shape.
        scale: g, ``[B]`` or one for all.
        t: the times, for ``interval``.
        interval: the times, from and to, at which guidance acts; elsewhere g is 1.

    Returns:
        ``unconditional + g * (conditional - unconditional)``, float32 or wider; at g = 1 exactly
        the conditional one, at g = 0 exactly the unconditional one.

    References:
        Ho and Salimans, Classifier-Free Diffusion Guidance, 2021; Kynkäänniemi et al., Applying
        Guidance in a Limited Interval, 2024.

    Example:
        >>> guided(jnp.ones((1, 1)), jnp.zeros((1, 1)), 3.0).tolist()
        [[3.0]]
    """
    conditional, unconditional = widen(conditional, unconditional)
    g = over(scale, conditional)
    if interval is not None:
        if t is None:
            raise ValueError("guidance in an interval needs t")
        t = over(t, conditional)
        g = jnp.where((t >= interval[0]) & (t <= interval[1]), g, 1.0)
    mixed = unconditional + g * (conditional - unconditional)
    # Without rounding where nothing is to be combined.
    return jnp.where(g == 1, conditional, mixed)


def scale_of_weight(weight):
    """The scale g = 1 + w of what latent consistency models call the weight w."""
    return 1 + weight


def guidance_embedding(weight: jax.Array, width: int) -> jax.Array:
    r"""Sines and cosines of a weight of guidance, to be an input of a net.

    .. math:: \sin(1000\,w\,\omega_i), \cos(1000\,w\,\omega_i), \qquad
        \omega_i = 10000^{-i / (\text{width}/2 - 1)}

    Args:
        weight: ``[B]``.
        width: of the embedding, even and at least 4.

    Returns:
        ``[B, width]``, all sines before all cosines.

    Raises:
        ValueError: for another width.

    Equal to:
        diffusers ``guidance_scale_embedding`` (for even widths).
    """
    if width < 4 or width % 2:
        raise ValueError(f"width must be even and at least 4, got {width}")
    (weight,) = widen(weight)
    half = width // 2
    rates = jnp.exp(-math.log(10000.0) / (half - 1) * jnp.arange(half, dtype=weight.dtype))
    angles = 1000.0 * weight[:, None] * rates[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
