"""How outputs of a teacher are written down, and what an objective sees of them.

A codec is made for the array of ONE record and works on batches of records: ``[B, ...]`` in,
``[B, ...]`` out, each record written alike whatever batch it comes in, up to the rounding of sums.
For distributions the last axis is the vocabulary and the axes before it are tokens.

Measures are the worst value in each record, ``[B]`` float32, and ``inf`` for what cannot be
written, so that a bound on a measure refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics as n
from jaxdistill.store import _codec as c
from jaxdistill.store._codec import Arrays, Codec, nbytes
from jaxdistill.store.classes import polynomial, sampled, top_k, top_p
from jaxdistill.store.sparse import densify

__all__ = [
    "CODECS",
    "Codec",
    "dense",
    "densify",
    "nbytes",
    "polynomial",
    "quantised",
    "sampled",
    "top_k",
    "top_p",
]

_INTEGERS = ("uint8", "uint16", "uint32", "int32")
_LARGEST_READ = 2**31 - 1  # integers are read as int32


def dense(spec: jax.ShapeDtypeStruct, *, dtype: str = "float32") -> Codec:
    """The array as it is, in another type.

    Args:
        spec: of one record, floating or integers.
        dtype: ``"float32"``, ``"float16"``, ``"bfloat16"``, or ``"float64"`` where JAX has it. For
            integers ``"uint8"``, ``"uint16"``, ``"uint32"`` or ``"int32"``; with the default they
            keep their own type, which must be one of these.

    Returns:
        A codec that decodes to float32 (float64 if that is stored), integers to int32. It measures
        ``error``, the largest absolute difference after reading, ``inf`` for what a narrow type
        has no room for; for integers ``overflow``, the share that does not come back.

    Raises:
        ValueError: for a type that is not among these.

    Example:
        >>> codec = dense(jax.ShapeDtypeStruct((3,), jnp.float32), dtype="float16")
        >>> keys = jax.random.split(jax.random.key(0), 1)
        >>> fields, measures = codec.encode(jnp.array([[1.0, 2.0, 7e4]]), keys)
        >>> float(measures["error"][0])
        inf
    """
    if jnp.issubdtype(spec.dtype, jnp.integer):
        return _dense_integers(spec, str(spec.dtype) if dtype == "float32" else dtype)
    c.floating(spec)
    c.one_of("dtype", dtype, (*c.FLOATS, "float64"))
    if dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise ValueError(f"dtype 'float64' needs jax_enable_x64; without it one of {c.FLOATS}")
    wide = jnp.promote_types(dtype, jnp.float32)

    def encode(values: jax.Array, keys: jax.Array) -> tuple[Arrays, Arrays]:
        (values,) = n.widen(c.like(values, spec))
        stored = values.astype(dtype)
        read = stored.astype(values.dtype)
        error = jnp.where(read == values, 0, jnp.abs(read - values))
        return {"values": stored}, {"error": c.worst(error)}

    return Codec(
        {"values": jax.ShapeDtypeStruct(spec.shape, jnp.dtype(dtype))},
        encode,
        lambda stored: stored["values"].astype(wide),
        ruled_out=True,
    )


def _dense_integers(spec: jax.ShapeDtypeStruct, dtype: str) -> Codec:
    c.one_of("dtype of integers", dtype, _INTEGERS)
    info, own = jnp.iinfo(dtype), jnp.iinfo(spec.dtype)
    low, high = max(info.min, own.min), min(info.max, own.max, _LARGEST_READ)

    def encode(values: jax.Array, keys: jax.Array) -> tuple[Arrays, Arrays]:
        values = c.like(values, spec)
        lost = (values < low) | (values > high)
        share = jnp.mean(lost.reshape(len(values), -1), axis=1, dtype=jnp.float32)
        return {"values": values.astype(dtype)}, {"overflow": share}

    return Codec(
        {"values": jax.ShapeDtypeStruct(spec.shape, jnp.dtype(dtype))},
        encode,
        lambda stored: stored["values"].astype(jnp.int32),
    )


def quantised(spec: jax.ShapeDtypeStruct, *, bound: float | None = None) -> Codec:
    """256 levels between the smallest and the largest value of each vector of the last axis.

    Args:
        spec: of one record, ``[..., D]`` floating.
        bound: the largest ``error_bound`` that a writer should take.

    Returns:
        A codec that decodes to float32 and measures ``error_bound``, half the largest step: what a
        value may be off by, but for the rounding of float32. Rows of one value come back exactly;
        ``inf`` where a value, or the range of a row, is not finite in float32.

    Raises:
        ValueError: for integers, scalars or a bound that is not positive.

    Example:
        >>> codec = quantised(jax.ShapeDtypeStruct((768,), jnp.float32))
        >>> nbytes(codec)
        776
    """
    c.floating(spec, axes=1)
    if bound is not None:
        c.positive("bound", bound)

    def encode(values: jax.Array, keys: jax.Array) -> tuple[Arrays, Arrays]:
        values = c.like(values, spec).astype(jnp.float32)
        low, high = jnp.min(values, axis=-1), jnp.max(values, axis=-1)
        scale = (high - low) / 255
        steps = (values - low[..., None]) / jnp.where(scale > 0, scale, 1)[..., None]
        # A step so small that it has lost its own digits would lead past the last level.
        levels = jnp.minimum(jnp.round(steps), 255).astype(jnp.uint8)
        stored = {"low": low, "scale": scale, "levels": levels}
        # The range of a row that is not finite is infinite or not a number.
        return stored, {"error_bound": c.worst(scale / 2)}

    def decode(stored: Mapping[str, jax.Array]) -> jax.Array:
        steps = stored["levels"].astype(jnp.float32) * stored["scale"][..., None]
        return stored["low"][..., None] + steps

    rows = jax.ShapeDtypeStruct(spec.shape[:-1], jnp.float32)
    levels = jax.ShapeDtypeStruct(spec.shape, jnp.uint8)
    return Codec({"low": rows, "scale": rows, "levels": levels}, encode, decode)


CODECS: dict[str, Callable[..., Codec]] = {
    codec.__name__: codec for codec in (dense, quantised, top_k, top_p, sampled, polynomial)
}
"""Codecs by name."""
