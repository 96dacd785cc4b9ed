"""Integers of any width, one after another without gaps."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def packed_size(count: int, bits: int) -> int:
    """Bytes of ``count`` integers of ``bits`` bits each.

    Example:
        >>> packed_size(64, 18)
        144
    """
    return -(-count * bits // 8)


def pack(values: jax.Array, bits: int) -> jax.Array:
    """Integers as a string of bits, the most significant bit of each first.

    Args:
        values: ``[..., n]``, integers in ``[0, 2^bits)``; of others the low ``bits`` bits are kept.
        bits: width of each, 1 to 32.

    Returns:
        ``[..., ceil(n * bits / 8)]`` uint8, the last byte filled up with zeros.

    Raises:
        ValueError: for values that are not integers or have no axis, or another width.

    Example:
        >>> pack(jnp.array([1, 2, 3]), 4)
        Array([18, 48], dtype=uint8)
    """
    _check(values, bits, jnp.integer)
    shifts = jax.lax.broadcasted_iota(jnp.uint32, (*values.shape, bits), values.ndim)
    each = values.astype(jnp.uint32)[..., None] >> (bits - 1 - shifts)
    return jnp.packbits((each & 1).reshape(*values.shape[:-1], -1).astype(jnp.uint8), axis=-1)


def unpack(packed: jax.Array, bits: int, count: int) -> jax.Array:
    """The integers of :func:`pack`.

    Args:
        packed: ``[..., ceil(count * bits / 8)]`` uint8.
        bits: width of each integer, 1 to 32.
        count: how many there are.

    Returns:
        ``[..., count]`` uint32.

    Raises:
        ValueError: for other than uint8, another width, or a last axis of another size.

    Example:
        >>> unpack(jnp.array([18, 48], jnp.uint8), 4, 3)
        Array([1, 2, 3], dtype=uint32)
    """
    _check(packed, bits, jnp.uint8)
    if packed.shape[-1] != packed_size(count, bits):
        raise ValueError(
            f"{count} integers of {bits} bits are {packed_size(count, bits)} bytes, "
            f"got {packed.shape[-1]}"
        )
    each = jnp.unpackbits(packed, axis=-1, count=count * bits)
    each = each.reshape(*packed.shape[:-1], count, bits).astype(jnp.uint32)
    shifts = jax.lax.broadcasted_iota(jnp.uint32, each.shape, each.ndim - 1)
    return jnp.sum(each << (bits - 1 - shifts), axis=-1, dtype=jnp.uint32)


def _check(array: jax.Array, bits: int, kind: type) -> None:
    if array.ndim == 0 or not jnp.issubdtype(array.dtype, kind):
        raise ValueError(
            f"bits are packed along the last axis of {kind.__name__} arrays, got "
            f"{array.dtype}{list(array.shape)}"
        )
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 32:
        raise ValueError(f"bits must be in 1..32, got {bits!r}")
