"""Hard inputs made from the sample of a loss, and how samples are changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.losses._entry import BATCH, Entry


def hard_inputs(entry: Entry, args: tuple, case: str) -> tuple[tuple, jax.Array | None] | None:
    """A hard input made from the sample of a loss, or None where the case says nothing about it.

    Args:
        entry: the loss.
        args: its sample.
        case: one of ``HARD``.

    Returns:
        The arguments, and ``where`` for a loss that takes it in this case.
    """
    first, second = entry.student[0], entry.teacher
    sides = (first,) if second is None else (first, second)
    if case == "large":
        return on(args, sides, lambda x: 200 * x), None
    if case == "saturated" and entry.scores:
        return on(args, (first,), _certain), None
    if case == "ruled out" and entry.accepts_neginf and second is not None:
        return on(args, (second,), _ruled_out), None
    if case == "zero rows":
        return on(args, sides, lambda x: x.at[0].set(0)), None
    if case == "duplicates":
        return on(args, sides, lambda x: x.at[1].set(x[0])), None
    if case == "single":
        return on_examples(entry, args, lambda x: x[:1]), None
    if case == "equal" and second is not None and shapes(args[first]) == shapes(args[second]):
        return replace(args, (second,), (args[first],)), None
    if case == "bf16":
        return cast(args, jnp.bfloat16), None
    if case in ("masked", "padding") and entry.kind == BATCH:
        size = examples(entry, args) * entry.group
        if case == "masked":
            return args, jnp.zeros(size, bool)
        spoilt = on_examples(entry, args, lambda x: x.at[-1].set(jnp.nan if is_float(x) else -1))
        return spoilt, jnp.arange(size) < size - entry.group
    return None


def is_float(x: Any) -> bool:
    """Whether it is an array of floats."""
    return isinstance(x, (jax.Array, np.ndarray)) and jnp.issubdtype(x.dtype, jnp.floating)


def cast(tree: Any, dtype: Any) -> Any:
    """The same arrays, floats in another dtype."""
    return jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, tree)


def shapes(tree: Any) -> Any:
    """The shape of every array."""
    return jax.tree.map(jnp.shape, tree)


def replace(args: tuple, positions: tuple[int, ...], values: tuple) -> tuple:
    """The arguments with others at some positions."""
    new = dict(zip(positions, values, strict=True))
    return tuple(new.get(i, x) for i, x in enumerate(args))


def on(args: tuple, positions: Sequence[int], change: Callable) -> tuple:
    """The arguments with their floats changed at some positions."""
    return tuple(
        jax.tree.map(lambda y: change(y) if is_float(y) else y, x) if i in positions else x
        for i, x in enumerate(args)
    )


def carriers(entry: Entry, args: tuple) -> tuple[int, ...]:
    """The positions of the arguments that lead with the batch."""
    return tuple(range(len(args))) if entry.batched is None else entry.batched


def examples(entry: Entry, args: tuple) -> int:
    """How many examples the sample holds."""
    return jax.tree.leaves(args[carriers(entry, args)[0]])[0].shape[0] // entry.group


def by_example(x: jax.Array, count: int) -> jax.Array:
    """``[count * rows, ...]`` as ``[count, rows, ...]``."""
    return x.reshape(count, -1, *x.shape[1:])


def on_examples(entry: Entry, args: tuple, change: Callable) -> tuple:
    """The arguments with their examples changed: ``change`` sees the examples lead."""
    count = examples(entry, args)

    def changed(x):
        new = change(by_example(x, count))
        return new.reshape(-1, *x.shape[1:])

    chosen = carriers(entry, args)
    return tuple(jax.tree.map(changed, x) if i in chosen else x for i, x in enumerate(args))


def _certain(scores: jax.Array) -> jax.Array:
    worst = jnp.argmin(scores, axis=-1).astype(jnp.int32)
    return 1e4 * jax.nn.one_hot(worst, scores.shape[-1], dtype=scores.dtype)


def _ruled_out(scores: jax.Array) -> jax.Array:
    rows = jnp.arange(scores[..., 0].size).reshape(scores.shape[:-1]) % scores.shape[-1]
    return jnp.where(jax.nn.one_hot(rows, scores.shape[-1], dtype=bool), -jnp.inf, scores)
