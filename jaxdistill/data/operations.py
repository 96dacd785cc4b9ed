"""What makes a view of an image a function of eight bytes: keys, seeds, sums in one order.

Compilers may add in another order, and take another routine for a transcendental function, when
the size of a batch changes. What is here does not let them, so that on the CPU a view depends to
the last bit on its key and its image alone; on accelerators as far as a batched product of small
matrices gives the same for every size of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Operation = Callable[[jax.Array, jax.Array], jax.Array]
"""An operation on images: ``(images, keys) -> images``, a key for each."""


def to_float(images: jax.Array) -> jax.Array:
    """Images in [0, 1]: uint8 divided by 255 as float32; half precision widened; else unchanged.

    Raises:
        TypeError: at trace time, for any other integers.

    Example:
        >>> to_float(jnp.array([0, 255], jnp.uint8))
        Array([0., 1.], dtype=float32)
    """
    images = jnp.asarray(images)
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255.0
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images must be uint8 or floating, not {images.dtype}")
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def view_keys(key: jax.Array, batch_size: int) -> jax.Array:
    """One key for every example, typed ``[batch_size]``, whatever kind of key is given."""
    return keys_of(jax.random.bits(key, (batch_size, 2), jnp.uint32))


def seeds_of(keys: jax.Array) -> jax.Array:
    """What to store to replay views: uint32 ``[..., 2]``, eight bytes an example.

    Raises:
        ValueError: for keys of another generator than threefry, which :func:`view_keys` uses.
    """
    seeds = jax.random.key_data(keys)
    if seeds.shape[-1] != 2:
        raise ValueError(
            f"seeds are those of threefry keys, two integers each, but these have {seeds.shape[-1]}"
        )
    return seeds


def keys_of(seeds: Any) -> jax.Array:
    """The keys that :func:`seeds_of` took apart."""
    return jax.random.wrap_key_data(jnp.asarray(seeds, jnp.uint32), impl="threefry2x32")


def views(*operations: Operation) -> Operation:
    """The operations one after another on a batch, each example from its own key.

    Args:
        operations: functions ``(key, image) -> image``; each gets a key of its own.

    Returns:
        ``(keys [B], images [B, H, W, C]) -> images``, floating, in [0, 1] unless normalised.
    """

    def view(key: jax.Array, image: jax.Array) -> jax.Array:
        image = to_float(image)
        for place, operation in enumerate(operations):
            image = operation(jax.random.fold_in(key, place), image)
        return image

    def batched(keys: jax.Array, images: jax.Array) -> jax.Array:
        if len(images) != 1:
            return jax.vmap(view)(keys, images)
        # XLA drops a batch axis of one and then multiplies matrices in another order.
        return jax.vmap(view)(jnp.repeat(keys, 2, axis=0), jnp.repeat(images, 2, axis=0))[:1]

    return batched


def ordered_sum(values: jax.Array) -> jax.Array:
    """The sum over the first axis, in an order that no compiler changes with the batch."""
    length = 1 << (len(values) - 1).bit_length()
    rest = values.shape[1:]
    values = jnp.pad(values, [(0, length - len(values))] + [(0, 0)] * len(rest))
    while len(values) > 1:
        values = values.reshape(2, len(values) // 2, *rest).sum(0)
    return values[0]


def coarse_exp(power: jax.Array) -> jax.Array:
    """About ``exp`` (to 1e-4 for powers in -0.4..1.5), by products alone.

    Compilers take one routine for vectors and another for what is left over at their end, so that
    the last bits of ``exp`` change with the size of the batch; those of products do not.
    """
    result = jnp.maximum(1 + power / 1024, 0)
    for _ in range(10):
        result = result * result
    return result


def resample(image: jax.Array, corner: jax.Array, box: jax.Array, size: int) -> jax.Array:
    """A box as ``[size, size, C]``; corner and sides of the box are (vertical, horizontal)."""
    shape = (size, size, image.shape[-1])
    zoom = size / box
    return jax.image.scale_and_translate(
        image, shape, (0, 1), zoom, -corner * zoom, "bilinear", precision=jax.lax.Precision.HIGHEST
    )


def inside_box(shape: Sequence[int], top: Any, left: Any, height: Any, width: Any) -> jax.Array:
    """Whether a pixel lies in a box, bool ``[H, W, 1]``."""
    rows = jnp.arange(shape[0])[:, None, None]
    columns = jnp.arange(shape[1])[None, :, None]
    in_rows = (rows >= top) & (rows < top + height)
    return in_rows & (columns >= left) & (columns < left + width)
