r"""Losses between the places of an image, for nets of unlike families: tokens of a transformer,
maps of a convolutional net, each on a grid of its own.

A sequence of tokens is read as a square grid behind the tokens that are no places (a class token,
registers): the largest square that it holds. Of two grids each is averaged to the smaller height
and width. Each loss gives one value per example, ``[B]``.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import same_features, to_smaller_grid
from jaxdistill.losses.numerics import gram, l2_normalise, same_batch, widen

# A class token, a distillation token, four registers.
_NO_PLACES = 6


def token_grid(features: jax.Array) -> jax.Array:
    """Features of places as maps: a sequence without the tokens that are no places.

    Args:
        features: tokens ``[B, N, D]``, or maps ``[B, H, W, D]``, which stay as they are.

    Returns:
        ``[B, H, W, D]``.

    Raises:
        ValueError: for features without places, and for a number of tokens that is no square and a
            few more.

    Example:
        >>> token_grid(jnp.zeros((2, 1 + 49, 8))).shape
        (2, 7, 7, 8)
    """
    if jnp.ndim(features) == 4:
        return features
    if jnp.ndim(features) != 3:
        raise ValueError(
            f"places need tokens [B, N, D] or maps [B, H, W, D], got {jnp.shape(features)}"
        )
    batch, tokens, width = features.shape
    side = math.isqrt(tokens)
    if tokens - side**2 > _NO_PLACES:
        raise ValueError(
            f"{tokens} tokens are no square grid behind at most {_NO_PLACES} others: "
            f"{side} x {side} leaves {tokens - side**2}"
        )
    return features[:, tokens - side**2 :].reshape(batch, side, side, width)


def _on_one_grid(student: jax.Array, teacher: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both sides on the smaller grid, wide, ``[B, N, D]``."""
    same_batch(student=student, teacher=teacher)
    student, teacher = (token_grid(side) for side in widen(student, teacher))
    sides = to_smaller_grid(student, teacher)
    first, second = (side.reshape(side.shape[0], -1, side.shape[-1]) for side in sides)
    return first, second


def grid_similarity(student: jax.Array, teacher: jax.Array) -> jax.Array:
    r"""Which places of an image are alike: the cosines between all pairs of them.

    .. math:: \frac{1}{N^2} \sum_{pq} \bigl(\cos(s_p, s_q) - \cos(t_p, t_q)\bigr)^2

    over the N places of the smaller grid. It needs neither labels nor a projector.

    Args:
        student: tokens ``[B, N, D]`` or maps ``[B, H, W, D]``.
        teacher: the same kind or the other, on any grid and of any width.

    Returns:
        ``[B]``, float32 or wider; invariant to scale and rotation of either side.

    Raises:
        ValueError: if the batches differ, and for tokens that are no grid.

    Hard values: a place of zeros has cosine zero to all, with gradient zero; zero at equality.

    Example:
        >>> alike, unlike = jnp.ones((1, 1, 2, 3)), jnp.eye(2).reshape(1, 1, 2, 2)
        >>> grid_similarity(alike, unlike).tolist()
        [0.5]

    References:
        Liu et al., `Structured Knowledge Distillation for Semantic Segmentation
        <https://arxiv.org/abs/1903.04197>`_, 2019
    """
    student, teacher = (l2_normalise(side) for side in _on_one_grid(student, teacher))
    return jnp.mean(jnp.square(gram(student) - gram(teacher)), axis=(1, 2))


def grid_cosine(student: jax.Array, teacher: jax.Array) -> jax.Array:
    r"""One minus the cosine between the features of student and teacher at each place.

    .. math:: \frac{1}{N} \sum_p 1 - \cos(s_p, t_p)

    over the N places of the smaller grid.

    Args:
        student: tokens ``[B, N, D]`` or maps ``[B, H, W, D]``, after the projector to the teacher's
            width.
        teacher: the same kind or the other, on any grid, of the same width.

    Returns:
        ``[B]`` in [0, 2], float32 or wider.

    Raises:
        ValueError: if batch or width differ, with the projector that would fit, and for tokens that
            are no grid.

    Hard values: a place of zeros has cosine zero, with gradient zero; zero at equality.

    Example:
        >>> maps, tokens = jnp.ones((1, 2, 2, 3)), -jnp.ones((1, 1 + 9, 3))
        >>> grid_cosine(maps, tokens).round(4).tolist()
        [2.0]

    References:
        Wei et al., `Contrastive Learning Rivals Masked Image Modeling in Fine-tuning via Feature
        Distillation <https://arxiv.org/abs/2205.14141>`_, 2022
    """
    student, teacher = _on_one_grid(student, teacher)
    same_features(student, teacher)
    student, teacher = l2_normalise(student), l2_normalise(teacher)
    return jnp.mean(1 - jnp.sum(student * teacher, axis=-1), axis=-1)
