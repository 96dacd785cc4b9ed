"""Features of a net over a whole set."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.evaluation.batches import Apply, Prepare, Read, compiled, run, sweep
from jaxdistill.net import Net

Pool = Literal["mean", "first", "flatten"]
POOLS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "mean": lambda x: x.reshape(x.shape[0], -1, x.shape[-1]).mean(1),
    "first": lambda x: x.reshape(x.shape[0], -1, x.shape[-1])[:, 0],
    "flatten": lambda x: x.reshape(x.shape[0], -1),
}


class Features(NamedTuple):
    """Features and labels of the records of a set, in order, without padding.

    Attributes:
        values: float32 or wider ``[n, D]``.
        labels: ``[n]``.
    """

    values: np.ndarray
    labels: np.ndarray


def features(
    net: Net,
    result: Any,
    data: Iterable[Any],
    read: Read = "out",
    *,
    pool: Pool = "mean",
    inputs: str = "image",
    label: str = "label",
    prepare: Prepare | None = None,
) -> Features:
    """The features that a net has of every record.

    Args:
        net: the net.
        result: its ``(params, state)``.
        data: batches.
        read: a path (``"out"``, ``"out/tokens"``, a tap) or a function of the
            :class:`~jaxdistill.net.Forward`, for an array ``[B, ..., D]``.
        pool: what becomes of axes between the first and the last: their ``"mean"``, the ``"first"``
            place (a class token), or ``"flatten"``.
        inputs: which entry of the batch the net sees.
        label: which entry holds the labels.
        prepare: ``(batch, key) -> batch`` before the net runs, with the same key at every
            evaluation.

    Raises:
        ValueError: for a path, a pool or an entry that does not exist, or a set without records.

    Example:
        >>> from jaxdistill.net import from_function
        >>> double = from_function(
        ...     lambda key, x: ({}, {}), lambda params, state, x, train, rng: (2 * x, {}, state)
        ... )
        >>> batch = {"image": np.ones((2, 3)), "label": np.array([4, 5])}
        >>> features(double, ({}, {}), [{**batch, "where": np.array([True, False])}])
        Features(values=array([[2., 2., 2.]], dtype=float32), labels=array([4], dtype=int32))
    """
    return reader(net, read, pool=pool, inputs=inputs, label=label, prepare=prepare)(result, data)


def reader(
    net: Net,
    read: Read,
    *,
    pool: Pool = "mean",
    inputs: str = "image",
    label: str = "label",
    prepare: Prepare | None = None,
    fits: Callable[[jax.Array], None] | None = None,
) -> Callable[[Any, Iterable[Any]], Features]:
    """:func:`features` as a function ``(result, data) -> Features`` that is compiled once, however
    many evaluators read the same features; ``fits`` raises, as it is traced, for features
    ``[B, D]`` that are not as they must be."""
    if pool not in POOLS:
        raise ValueError(unknown("pool", pool, POOLS))
    step = _reading(net.apply, read, pool, inputs, label, prepare, fits)

    def measure(result: Any, data: Iterable[Any]) -> Features:
        values, labels, where = zip(*sweep(step, result, data), strict=True)
        kept = np.concatenate(where)
        return Features(np.concatenate(values)[kept], np.concatenate(labels)[kept])

    return measure


@functools.lru_cache(maxsize=32)
def _reading(
    apply: Apply,
    read: Read,
    pool: Pool,
    inputs: str,
    label: str,
    prepare: Prepare | None,
    fits: Callable[[jax.Array], None] | None,
) -> Callable[..., Any]:
    def step(variables, batch):
        (found,) = run(apply, variables, batch, inputs, read)
        values = flat(found, pool)
        if fits is not None:
            fits(values)
        return values, batch[label], batch["where"]

    return compiled(step, prepare)


def remembered(measure: Callable[[Any, Iterable[Any]], Features], data: Iterable[Any]) -> Any:
    """The features of one set as a function of a result: of the last one they are known, so that
    evaluators who ask for them of several sets compute them once.

    Only arrays of JAX are recognised: others may have changed in the meantime.
    """
    last: list[Any] = [(), None]

    def forget(_: Any) -> None:
        last[:] = [(), None]

    def known(result: Any) -> Features:
        leaves = jax.tree.leaves(result)
        same = len(leaves) == len(last[0]) > 0
        if not (same and all(seen() is leaf for seen, leaf in zip(last[0], leaves, strict=True))):
            found = measure(result, data)
            if not all(isinstance(leaf, jax.Array) for leaf in leaves):
                return found
            # Nothing is kept longer than the weights it is of.
            last[:] = [[weakref.ref(leaf, forget) for leaf in leaves], found]
            return found
        return last[1]

    return known


def flat(x: jax.Array, pool: str) -> jax.Array:
    """Features ``[B, ..., D]`` as ``[B, D]``, float32 or wider."""
    if x.ndim < 2:
        raise ValueError(f"features must be [B, ..., D], got {x.shape}")
    return POOLS[pool](x.astype(jnp.promote_types(x.dtype, jnp.float32)))
