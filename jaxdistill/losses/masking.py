"""What does not count reaches neither the value of a loss nor its gradient."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.settings import Natural


def harmless(tree: Any, where: jax.Array) -> Any:
    """The arrays with zeros where nothing counts: a loss of them is finite there.

    Selecting values after a loss is not enough: the gradient of what was dropped is zero times the
    slope of the loss, which is NaN where the slope is.

    Args:
        tree: arrays that lead with the examples. Integers stay as they are.
        where: ``[B]``, or ``[B, ...]`` for tokens, zero or false where nothing counts. It is
            applied position by position to arrays ``[*where.shape]`` and ``[*where.shape, D]``, and
            example by example to all others.

    Example:
        >>> harmless(jnp.array([[1.0, 2.0], [jnp.nan, 3.0]]), jnp.array([True, False])).tolist()
        [[1.0, 2.0], [0.0, 0.0]]
    """
    counts = where.astype(bool)
    examples = counts.reshape(counts.shape[0], -1).any(axis=1)

    def cleared(x):
        if not jnp.issubdtype(jnp.result_type(x), jnp.inexact) or jnp.ndim(x) == 0:
            return x
        fits = counts.shape in (x.shape, x.shape[:-1])
        if not fits and x.shape[:1] != examples.shape:
            return x
        keep = counts if fits else examples
        return jnp.where(keep.reshape(keep.shape + (1,) * (x.ndim - keep.ndim)), x, 0)

    return jax.tree.map(cleared, tree)


def masked(loss: Callable, *, rows: tuple[Natural, ...] = (0, 1)) -> Callable:
    """A loss with ``where``: rows that do not count may hold anything, NaN and infinities too.

    ``masked(loss)(student, teacher, ..., where=where)`` gives values that are 0, with gradient 0,
    where ``where`` is false, and those of ``loss`` elsewhere. Losses that couple the batch take
    ``where`` themselves, and are told. :func:`jaxdistill.objective.match` does the same to what it
    reads.

    Args:
        loss: any loss of this package, or another pure function of arrays.
        rows: the positions of the arguments that lead with the examples: student and teacher by
            default. Others are taken as they are: a bank or a margin has no rows to mask.

    Returns:
        The loss, with the keyword ``where`` (``[B]``, or the shape of its values; all counts by
        default).

    Raises:
        ValueError: when called, if ``where`` does not lead the shape of the values, or if the loss
            is one value of the batch and takes no ``where``.

    Example:
        >>> from jaxdistill.losses import hint
        >>> student = jnp.array([[1.0], [jnp.nan]])
        >>> where = jnp.array([True, False])
        >>> masked(hint)(student, jnp.zeros((2, 1)), where=where).tolist()
        [1.0, 0.0]
        >>> jax.grad(lambda s: masked(hint)(s, s - s, where=where).sum())(student).tolist()
        [[2.0], [0.0]]
    """
    takes_where = "where" in inspect.signature(loss).parameters

    @functools.wraps(loss)
    def wrapped(*args, where: jax.Array | None = None, **kwargs):
        if where is None:
            return loss(*args, **kwargs)
        args = tuple(harmless(x, where) if i in rows else x for i, x in enumerate(args))
        if takes_where:
            return loss(*args, where=where, **kwargs)
        values = loss(*args, **kwargs)
        if values.ndim == 0 or where.shape != values.shape[: where.ndim]:
            raise ValueError(
                f"where {jnp.shape(where)} must lead the shape of the values, {values.shape}; a "
                "loss of the batch as a whole must take where itself"
            )
        keep = where.astype(bool).reshape(where.shape + (1,) * (values.ndim - where.ndim))
        return jnp.where(keep, values, 0)

    return wrapped
