"""Squared distances of probabilities, from labels and from a teacher: bounded, so that a wrong
label weighs no more than two.

One value per example, not reduced, summed over the classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics as n


def brier_score(logits: jax.Array, labels: jax.Array, *, axis: int = -1) -> jax.Array:
    r"""Squared distance of the probabilities from the one-hot label.

    .. math:: \sum_k (s_k - [k = y])^2, \qquad s = \mathrm{softmax}(z)

    Args:
        logits: ``[..., K]`` (classes at ``axis``).
        labels: ``[...]``, integers. A label that is no class (``-100``, say) gives zero.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example in [0, 2], float32 or wider.

    Raises:
        ValueError: labels that are no integers or do not fit the logits.

    References:
        Brier 1950, "Verification of forecasts expressed in terms of probability", Monthly Weather
        Review 78.

    Example:
        >>> float(brier_score(jnp.array([0.0, 0.0]), jnp.array(1)))
        0.5
    """
    (z,) = n.last(axis, *n.widen(logits))
    n.rank(1, logits=z)
    known, labels, z = n.labelled(labels, z)
    off = jax.nn.softmax(z) - n.is_class(labels, z).astype(z.dtype)
    return jnp.where(known, jnp.sum(jnp.square(off), axis=-1), 0)


def probability_distance(student: jax.Array, teacher: jax.Array, *, axis: int = -1) -> jax.Array:
    r"""Squared distance of the student's probabilities from the teacher's.

    .. math:: \sum_k (s_k - t_k)^2, \qquad s, t = \mathrm{softmax}

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example in [0, 2], float32 or wider.

    Raises:
        ValueError: shapes that differ.

    The deep experiments of Borup and Andersen take its mean over the classes, 1/K of it.

    References:
        Borup, Andersen 2021, "Even your teacher needs guidance" (arXiv 2102.13088).

    Example:
        >>> float(probability_distance(jnp.array([0.0, 0.0]), jnp.array([0.0, -jnp.inf])))
        0.5
    """
    s, t = n.pair(student, teacher, axis)
    log_s, log_t = n.log_softmax(s), n.log_softmax(t)
    return n.unless_empty(jnp.sum(jnp.square(jnp.exp(log_s) - jnp.exp(log_t)), -1), log_s, log_t)
