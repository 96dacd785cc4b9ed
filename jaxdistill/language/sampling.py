"""What a model may say next: temperature and truncation, the same for every use of a model."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.settings import Count, NonNegative, Range, Share

# A share that is not nothing.
Part = Annotated[float, Range(0, 1, above=True)]


class Sampling(NamedTuple):
    """How the next token is drawn from logits. The parts apply in this order.

    Attributes:
        temperature: what logits are divided by; 0 is greedy, the first of the largest logits.
        top_k: only the so many most likely tokens; of equals, those of smaller number.
        top_p: only the most likely tokens that together have this probability: the token that
            reaches it is the last.
        min_p: only tokens at least so likely, relative to the most likely one.
    """

    temperature: NonNegative = 1.0
    top_k: Count | None = None
    top_p: Part | None = None
    min_p: Share | None = None


PLAIN = Sampling()


def check_sampling(sampling: Sampling) -> Sampling:
    """Refuses what is no way to sample.

    Raises:
        ValueError: naming the value that is out of range.
    """
    temperature, top_k, top_p, min_p = sampling
    if temperature < 0:
        raise ValueError(f"temperature must be 0 (greedy) or above, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be 1 or more tokens, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ValueError(f"min_p must be in [0, 1], got {min_p}")
    return sampling


def log_probabilities(logits: jax.Array, sampling: Sampling = PLAIN) -> jax.Array:
    """The logarithms of what the next token is drawn with.

    Args:
        logits: ``[..., V]``; ``-inf`` is a token that is ruled out.
        sampling: temperature and truncation.

    Returns:
        ``[..., V]``, normalised, float32 or wider; ``-inf`` for what is never drawn.

    Raises:
        ValueError: see :func:`check_sampling`.

    Example:
        >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
        >>> jnp.exp(log_probabilities(logits, Sampling(top_k=2))).tolist()
        [0.625, 0.375, 0.0]
        >>> jnp.exp(log_probabilities(logits, Sampling(temperature=0))).tolist()
        [1.0, 0.0, 0.0]
    """
    temperature, top_k, top_p, min_p = check_sampling(sampling)
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if temperature == 0:
        chosen = jax.nn.one_hot(jnp.argmax(wide, axis=-1), wide.shape[-1], dtype=bool)
        return jnp.where(chosen, 0.0, -jnp.inf).astype(wide.dtype)
    found = jax.nn.log_softmax(wide / temperature, axis=-1)
    if top_k is not None or top_p is not None:
        order = jnp.argsort(found, axis=-1, descending=True, stable=True)
        rank = jnp.argsort(order, axis=-1)
        if top_k is not None:
            found = _kept(found, rank < top_k)
        if top_p is not None:
            sizes = jnp.exp(jnp.take_along_axis(found, order, axis=-1))
            before = jnp.cumsum(sizes, axis=-1) - sizes
            found = _kept(found, jnp.take_along_axis(before < top_p, rank, axis=-1))
    if min_p:
        floor = found.max(-1, keepdims=True) + jnp.log(jnp.asarray(min_p, found.dtype))
        found = _kept(found, found >= floor)
    return found


def _kept(log_probs: jax.Array, kept: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(jnp.where(kept, log_probs, -jnp.inf), axis=-1)
