"""The scores of a critic ``[B, B]``, and means over them: what the bounds on mutual information
share."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import off_diagonal, pairs
from jaxdistill.losses.numerics import ratio, widen


def square(scores: jax.Array, where: jax.Array | None) -> jax.Array:
    """Wide scores, zero in the rows and columns that do not count."""
    if jnp.ndim(scores) != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f"scores must be [B, B], got shape {jnp.shape(scores)}")
    (scores,) = widen(scores)
    return scores if where is None else jnp.where(pairs(where, scores.shape[0]), scores, 0)


def per_row(baseline: jax.Array, scores: jax.Array, where: jax.Array | None) -> jax.Array:
    baseline = jnp.asarray(baseline).astype(scores.dtype)
    if baseline.ndim == 0:
        return baseline[None, None]
    if baseline.shape != scores.shape[:1]:
        raise ValueError(
            f"baseline needs one entry per row of {scores.shape}, got {baseline.shape}"
        )
    return (baseline if where is None else jnp.where(where.astype(bool), baseline, 0))[:, None]


def off_mean(values: jax.Array, where: jax.Array | None) -> jax.Array:
    beside = off_diagonal(where, values.shape[0])
    total = jnp.sum(jnp.where(beside, values, 0))
    return ratio(total, jnp.sum(beside.astype(values.dtype)))


def tangent_exp(x: jax.Array) -> jax.Array:
    """The exponential, continued by its tangent where it would overflow: a bound that is hopelessly
    low stays finite, and its gradient still leads out."""
    top = jnp.log(jnp.finfo(x.dtype).max) - 24
    over = x > top
    inside = jnp.exp(jnp.where(over, top, x))
    return jnp.where(over, inside * (1 + jnp.where(over, x - top, 0)), inside)
