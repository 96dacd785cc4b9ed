"""What a codec is, and the checks and measures that codecs share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown

FLOATS = ("float32", "float16", "bfloat16")

Arrays = dict[str, jax.Array]


class Codec(NamedTuple):
    """How the arrays of a record are written and read, all pure and of static shapes.

    Attributes:
        fields: what one record stores, without a batch axis.
        encode: ``(values [B, *record], keys [B]) -> (fields [B, ...], measures {name: [B]})``.
        decode: ``fields [B, ...] ->`` what the objective sees.
        ruled_out: whether it keeps -inf, a class that is ruled out, among other values.
    """

    fields: dict[str, jax.ShapeDtypeStruct]
    encode: Callable[[jax.Array, jax.Array], tuple[Arrays, Arrays]]
    decode: Callable[[Mapping[str, jax.Array]], Any]
    ruled_out: bool = False


def nbytes(codec: Codec) -> int:
    """Bytes of one record.

    Example:
        >>> fields = {"ids": jax.ShapeDtypeStruct((7, 3), jnp.uint16)}
        >>> nbytes(Codec(fields, None, None))
        42
    """
    return sum(math.prod(f.shape) * jnp.dtype(f.dtype).itemsize for f in codec.fields.values())


def floating(spec: jax.ShapeDtypeStruct, axes: int = 0) -> None:
    """Raises a ValueError unless a record is floating, of at least so many axes, and not empty."""
    fits = jnp.issubdtype(spec.dtype, jnp.floating) and len(spec.shape) >= axes
    if not fits or 0 in spec.shape:
        raise ValueError(
            f"a record must be floating, of at least {axes} axes and not empty, got "
            f"{spec.dtype}{list(spec.shape)}"
        )


def like(values: Any, spec: jax.ShapeDtypeStruct) -> jax.Array:
    """The values, or a ValueError unless they are a batch of such records."""
    values = jnp.asarray(values)
    if values.shape[1:] != spec.shape or values.ndim == 0 or values.dtype != spec.dtype:
        raise ValueError(
            f"records are {spec.dtype}{list(spec.shape)}, but the batch is "
            f"{values.dtype}{list(values.shape)}"
        )
    return values


def within(name: str, value: object, low: int, high: int) -> None:
    """Raises a ValueError unless a setting is an integer between two others, themselves allowed."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be an integer in {low}..{high}, got {value!r}")


def positive(name: str, value: Any, most: float = math.inf) -> None:
    """Raises a ValueError unless a setting is a finite number above 0, at most ``most``."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (0 < value <= most and value < math.inf):
        end = "" if most == math.inf else f", at most {most}"
        raise ValueError(f"{name} must be a finite number above 0{end}, got {value!r}")


def flag(name: str, value: object) -> None:
    """Raises a ValueError unless a setting is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")


def one_of(name: str, value: object, options: Iterable[str | None]) -> None:
    """Raises a ValueError unless a setting is one of these names."""
    options = tuple(options)
    if value not in options:
        raise ValueError(unknown(name, value, map(str, options)))


def worst(values: jax.Array) -> jax.Array:
    """The largest value in each record, ``[B]`` float32; what is not a number is infinite."""
    largest = jnp.max(values.reshape(len(values), -1), axis=1).astype(jnp.float32)
    return jnp.where(jnp.isnan(largest), jnp.inf, largest)
