"""Log-probabilities of some classes of each token, as codecs write and read them.

One structure for all: ``{"ids": int32 [..., K], "log_probs": float32 [..., K], "log_tail": float32
[...]}``, log-probabilities of ``K`` classes, ``-inf`` with id ``V`` where a slot is empty, and the
log of the mass of all other classes. :func:`jaxdistill.losses.sparse_kl` takes ids and
log-probabilities as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics as n
from jaxdistill.store import _codec as c
from jaxdistill.store import bits

MISSING = ("uniform", "renormalise", "zero", "sampled")


def densify(sparse: Mapping[str, jax.Array], vocabulary: int, missing: str) -> jax.Array:
    """Log-probabilities of all classes from those of some.

    Args:
        sparse: ``ids`` ``[..., K]`` (distinct; out of range is padding), ``log_probs`` ``[..., K]``
            and ``log_tail`` ``[...]``.
        vocabulary: number of classes ``V``.
        missing: ``"uniform"``: the tail is spread evenly over the classes that are not known;
            ``"renormalise"``: those have no mass, the known ones are made to sum to 1; ``"zero"``:
            they have none, and the known ones stay, so that the mass is not 1; ``"sampled"``: the
            same, where they are shares of draws.

    Returns:
        ``[..., V]`` float32; ``-inf`` is a class without mass. Under ``"uniform"`` the mass is 1
        but for the rounding of what is stored; a token of padding only is ``-inf`` everywhere but
        for its tail.

    Raises:
        ValueError: for another rule.

    Example:
        >>> sparse = {"ids": jnp.array([2]), "log_probs": jnp.log(jnp.array([0.5])),
        ...     "log_tail": jnp.log(0.5)}
        >>> jnp.exp(densify(sparse, 3, "uniform"))
        Array([0.25, 0.25, 0.5 ], dtype=float32)
    """
    c.one_of("missing", missing, MISSING)
    ids, log_probs = sparse["ids"], sparse["log_probs"].astype(jnp.float32)
    known = (ids >= 0) & (ids < vocabulary) & ~jnp.isneginf(log_probs)
    log_probs = jnp.where(known, log_probs, -jnp.inf)
    others = jnp.full(ids.shape[:-1], -jnp.inf, jnp.float32)
    if missing == "uniform":
        count = vocabulary - jnp.sum(known, axis=-1)
        share = sparse["log_tail"].astype(jnp.float32) - jnp.log(
            jnp.maximum(count, 1).astype(jnp.float32)
        )
        others = jnp.where(count > 0, share, -jnp.inf)
    elif missing == "renormalise":
        total = jax.nn.logsumexp(log_probs, axis=-1, keepdims=True)
        log_probs = jnp.where(known, log_probs - total, -jnp.inf)
    everything = jnp.broadcast_to(others[..., None], (*others.shape, vocabulary))
    places = jnp.where(known, ids, vocabulary)
    return jnp.put_along_axis(everything, places, log_probs, axis=-1, inplace=False, mode="drop")


def common(
    spec: jax.ShapeDtypeStruct, temperature: float, missing: str
) -> tuple[tuple[int, ...], int]:
    """The shape of the tokens and the size of the vocabulary, once what is common is checked."""
    c.floating(spec, axes=1)
    c.positive("temperature", temperature)
    c.one_of("missing", missing, (*MISSING, "sparse"))
    return spec.shape[:-1], spec.shape[-1]


def id_field(
    shape: tuple[int, ...], largest: int, packed: bool
) -> tuple[jax.ShapeDtypeStruct, Callable[[jax.Array], jax.Array], Callable[..., jax.Array]]:
    """The field that holds ids ``0..largest`` of a shape, and how to write and read it.

    Packed ids take as many bits as ``largest``, others the smallest type that has room for it.
    """
    c.flag("packed", packed)
    if packed:
        width = max(largest.bit_length(), 1)
        field = jax.ShapeDtypeStruct((*shape[:-1], bits.packed_size(shape[-1], width)), jnp.uint8)
        read = partial(bits.unpack, bits=width, count=shape[-1])
        return field, partial(bits.pack, bits=width), lambda x: read(x).astype(jnp.int32)
    dtype = next(d for d in ("uint8", "uint16", "uint32") if largest <= jnp.iinfo(d).max)
    field = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    return field, lambda ids: ids.astype(dtype), lambda x: x.astype(jnp.int32)


def log_probs(logits: Any, spec: jax.ShapeDtypeStruct, temperature: float) -> jax.Array:
    """Of a batch of such records, float32 or wider; NaN for a token that rules every class out."""
    (logits,) = n.widen(c.like(logits, spec))
    found = n.log_softmax(logits, temperature)
    return n.unless_empty(found, found[..., None, :])


def most_probable(log_probs: jax.Array, k: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The k largest and their ids, ``[..., k]``, and the log of the mass of the others, float32."""
    # Without the barrier XLA on CPU sorts all classes where only a slice of these is read later.
    best, ids = jax.lax.optimization_barrier(jax.lax.top_k(log_probs, k))
    others = jnp.put_along_axis(log_probs, ids, -jnp.inf, axis=-1, inplace=False)
    log_tail = jax.nn.logsumexp(others, axis=-1).astype(jnp.float32)
    return best, ids, or_nan(log_tail, log_probs)


def or_nan(values: jax.Array, log_probs: jax.Array) -> jax.Array:
    """Values ``[...]``, but NaN for the tokens whose logits are no distribution."""
    # log_probs leaves either no class of a token NaN or all of them.
    return jnp.where(jnp.isnan(log_probs[..., 0]), jnp.nan, values)


def seen(
    ids: jax.Array, log_probs: jax.Array, log_tail: jax.Array, vocabulary: int, missing: str
) -> Any:
    """What the objective sees: the sparse structure, or all classes by a rule."""
    log_probs = log_probs.astype(jnp.float32)
    ids = jnp.where(jnp.isneginf(log_probs), vocabulary, ids)
    sparse = {"ids": ids, "log_probs": log_probs, "log_tail": log_tail}
    return sparse if missing == "sparse" else densify(sparse, vocabulary, missing)
