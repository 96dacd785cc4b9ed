"""Sorted log-probabilities as a few exact values, a curve in the rank, and coarse residuals.

The form is that of DistillKit: after the exact values the ranks count from 0, the curve is the
least-squares fit on the terms, and what it misses may be kept in bins, each a run of consecutive
ranks with one scale. With ``delta`` all of this is done to the differences of neighbours. Its bytes
are met for powers and one bin; ``"sqrt"`` and ``"exp"`` are what the words say, not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.losses import numerics as n
from jaxdistill.store import bits

TERMS = {"sqrt": np.sqrt, "exp": lambda rank: np.exp(-rank)}


class Form(NamedTuple):
    """How ``k`` sorted values are written down.

    Attributes:
        k: number of values.
        exact: how many of the first are kept as they are.
        terms: what the curve is made of: powers of the rank, ``"sqrt"``, and ``"exp"``, which is
            ``exp(-rank)``.
        dtype: of the exact values; coefficients and scales are float32.
        bins: pairs (ranks, bits a rank), one bin after another from the first rank of the curve.
        delta: whether differences of neighbours are written, the first from 0.
    """

    k: int
    exact: int
    terms: tuple[int | str, ...]
    dtype: str
    bins: tuple[tuple[int, ...], ...]
    delta: bool


def check(form: Form) -> None:
    """Raises a ValueError for terms or bins that do not fit the number of values."""
    fitted = form.k - form.exact
    for term in form.terms:
        if isinstance(term, str) and term not in TERMS:
            raise ValueError(unknown("term of terms", term, [*TERMS, "a power, 0 or more"]))
        if not isinstance(term, str) and not (_is_integer(term) and term >= 0):
            raise ValueError(f"a power among terms must be an integer of at least 0, got {term!r}")
    least = min(fitted, 1)
    distinct = len(set(form.terms)) == len(form.terms)
    if not distinct or not least <= len(form.terms) <= fitted:
        raise ValueError(
            f"terms must be {least} to {fitted} different ones where k - exact = {fitted} values "
            f"are fitted, got {form.terms}"
        )
    for size in form.bins:
        if not (len(size) == 2 and all(map(_is_integer, size)) and 1 <= size[1] <= 16):
            raise ValueError(f"bins must be pairs (ranks, bits in 1..16), got {size!r}")
    if any(ranks < 1 for ranks, _ in form.bins) or sum(size[0] for size in form.bins) > fitted:
        raise ValueError(
            f"bins must cover at least 1 rank each and at most k - exact = {fitted} together, "
            f"got {form.bins}"
        )


def fields(form: Form, tokens: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """What is stored of values ``[*tokens, k]``; what would be empty is left out."""
    sizes = {
        "exact": (form.exact, form.dtype),
        "coefficients": (len(form.terms), "float32"),
        "scales": (len(form.bins), "float32"),
        "residuals": (sum(bits.packed_size(*size) for size in form.bins), "uint8"),
    }
    return {
        name: jax.ShapeDtypeStruct((*tokens, size), jnp.dtype(dtype))
        for name, (size, dtype) in sizes.items()
        if size
    }


def compress(form: Form, values: jax.Array) -> dict[str, jax.Array]:
    """The fields of values ``[..., k]``, sorted downwards and finite."""
    if form.delta:
        values = jnp.diff(values, axis=-1, prepend=jnp.zeros_like(values[..., :1]))
    rest = values[..., form.exact :]
    solve = jnp.asarray(np.linalg.pinv(_basis(form)).T, values.dtype)
    first = n.matmul(rest, solve)
    # Powers are nearly alike, so the fit of what the fit missed gives back digits it had lost.
    again = n.matmul(rest - _curve(form, first), solve)
    coefficients = (first + again).astype(jnp.float32)
    missed = rest - _curve(form, coefficients)
    scales, residuals, start = [], [], 0
    for ranks, width in form.bins:
        scale, levels = _to_levels(missed[..., start : start + ranks], width)
        scales.append(scale)
        residuals.append(bits.pack(levels, width))
        start += ranks
    written = {"exact": values[..., : form.exact].astype(form.dtype), "coefficients": coefficients}
    if form.bins:
        written["scales"] = jnp.stack(scales, axis=-1)
        written["residuals"] = jnp.concatenate(residuals, axis=-1)
    return {name: array for name, array in written.items() if array.shape[-1]}


def expand(form: Form, stored: Mapping[str, jax.Array]) -> jax.Array:
    """The values of :func:`compress` as they can be had again, ``[..., k]`` float32."""
    parts = []
    if form.exact:
        parts.append(stored["exact"].astype(jnp.float32))
    if form.terms:
        parts.append(_curve(form, stored["coefficients"]) + _residuals(form, stored))
    values = jnp.concatenate(parts, axis=-1)
    return jnp.cumsum(values, axis=-1) if form.delta else values


def _basis(form: Form) -> np.ndarray:
    """The terms at every rank of the curve, ``[ranks, terms]`` float64."""
    rank = np.arange(form.k - form.exact, dtype=np.float64)
    columns = [TERMS[t](rank) if isinstance(t, str) else rank**t for t in form.terms]
    return np.stack(columns, axis=-1) if columns else np.zeros((len(rank), 0))


def _curve(form: Form, coefficients: jax.Array) -> jax.Array:
    return n.matmul(coefficients, jnp.asarray(_basis(form).T, coefficients.dtype))


def _to_levels(missed: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
    """A float32 scale, and levels ``0..2^width - 1`` of which the middle one is no residual."""
    middle = 1 << (width - 1)
    scale = (jnp.max(jnp.abs(missed), axis=-1) / middle).astype(jnp.float32)
    steps = jnp.round(missed / jnp.where(scale > 0, scale, 1)[..., None])
    return scale, jnp.clip(steps + middle, 0, 2 * middle - 1).astype(jnp.int32)


def _residuals(form: Form, stored: Mapping[str, jax.Array]) -> jax.Array:
    """What the bins add to the curve, zero after the last of them."""
    parts, byte, covered = [], 0, 0
    for place, (ranks, width) in enumerate(form.bins):
        end = byte + bits.packed_size(ranks, width)
        levels = bits.unpack(stored["residuals"][..., byte:end], width, ranks).astype(jnp.float32)
        parts.append((levels - (1 << (width - 1))) * stored["scales"][..., place, None])
        byte, covered = end, covered + ranks
    tokens = stored["coefficients"].shape[:-1]
    parts.append(jnp.zeros((*tokens, form.k - form.exact - covered), jnp.float32))
    return jnp.concatenate(parts, axis=-1)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
