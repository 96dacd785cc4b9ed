"""Codecs that keep some classes of each token: the best, or a sample.

What they are given are logits ``[B, ..., V]``; ``K`` is the number of classes that are kept of a
token. With ``missing="sparse"`` they decode to the structure of :mod:`jaxdistill.store.sparse`, at
the temperature of the codec; with a rule of :func:`jaxdistill.store.densify` to ``[..., V]``
float32, for any loss on logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.store import _codec as c
from jaxdistill.store import polynomial as curves
from jaxdistill.store import sparse
from jaxdistill.store._codec import Arrays, Codec


def top_k(
    spec: jax.ShapeDtypeStruct,
    *,
    k: int,
    values: str = "float16",
    packed: bool = False,
    temperature: float = 1.0,
    missing: str = "uniform",
) -> Codec:
    """The ``k`` most probable classes of each token, best first, and the mass of the others.

    Args:
        spec: logits of one record, ``[..., V]``.
        k: 1 to V.
        values: type of the log-probabilities: ``"float16"``, ``"bfloat16"`` or ``"float32"``.
        packed: ids in ``ceil(log2 V)`` bits each, else in whole bytes.
        temperature: what the logits are divided by.
        missing: a rule of :func:`jaxdistill.store.densify`, or ``"sparse"`` for the sparse
            structure.

    Returns:
        A codec that measures ``tail_mass``, the largest mass of the other classes of a token, from
        the logits.

    Raises:
        ValueError: for settings out of range or unknown.

    References:
        Shen and Xing 2021, "A fast knowledge distillation framework for visual recognition" (arXiv
        2112.01528): ``"uniform"`` is its marginal smoothing.

    Example:
        >>> codec = top_k(jax.ShapeDtypeStruct((4,), jnp.float32), k=2, missing="sparse")
        >>> logits = jnp.log(jnp.array([[0.25, 0.5, 0.125, 0.125]]))
        >>> fields, measures = codec.encode(logits, jax.random.split(jax.random.key(0), 1))
        >>> codec.decode(fields)["ids"], measures["tail_mass"]
        (Array([[1, 0]], dtype=int32), Array([0.25], dtype=float32))
    """
    tokens, vocabulary = sparse.common(spec, temperature, missing)
    c.within("k", k, 1, vocabulary)
    fields, write, decode = _valued(tokens, k, vocabulary, vocabulary - 1, values, packed, missing)

    def encode(logits: jax.Array, keys: jax.Array) -> tuple[Arrays, Arrays]:
        best, ids, log_tail = sparse.most_probable(sparse.log_probs(logits, spec, temperature), k)
        return write(ids, best, log_tail), {"tail_mass": c.worst(jnp.exp(log_tail))}

    return Codec(fields, encode, decode, ruled_out=True)


def top_p(
    spec: jax.ShapeDtypeStruct,
    *,
    p: float,
    k: int,
    values: str = "float16",
    packed: bool = False,
    temperature: float = 1.0,
    missing: str = "uniform",
) -> Codec:
    """The fewest classes of each token whose mass is at least ``p``, at most ``k`` of them.

    Args:
        spec: logits of one record, ``[..., V]``.
        p: above 0, at most 1.
        k: number of slots, 1 to V.
        values: as for :func:`top_k`.
        packed: as there, in the bits of ``V``, which is the id of an empty slot.
        temperature: as there.
        missing: as there.

    Returns:
        A codec that measures ``tail_mass``, the largest mass of the classes of a token that are not
        kept, and ``overflow``, 1 if ``k`` slots do not reach ``p`` for some token.

    Raises:
        ValueError: for settings out of range or unknown.

    Example:
        >>> codec = top_p(jax.ShapeDtypeStruct((4,), jnp.float32), p=0.6, k=3, missing="sparse")
        >>> logits = jnp.log(jnp.array([[0.25, 0.5, 0.125, 0.125]]))
        >>> fields, measures = codec.encode(logits, jax.random.split(jax.random.key(0), 1))
        >>> codec.decode(fields)["ids"], measures["overflow"]
        (Array([[1, 0, 4]], dtype=int32), Array([0.], dtype=float32))
    """
    tokens, vocabulary = sparse.common(spec, temperature, missing)
    c.positive("p", p, most=1)
    c.within("k", k, 1, vocabulary)
    fields, write, decode = _valued(tokens, k, vocabulary, vocabulary, values, packed, missing)

    def encode(logits: jax.Array, keys: jax.Array) -> tuple[Arrays, Arrays]:
        log_probs = sparse.log_probs(logits, spec, temperature)
        best, ids, log_tail = sparse.most_probable(log_probs, k)
        beyond = jnp.exp(log_tail)
        # Masses from here on are summed from the small end, so that rounding spares a p near 1.
        from_here = jax.lax.cumsum(jnp.exp(best), axis=best.ndim - 1, reverse=True)
        kept = (from_here + beyond[..., None] > 1 - p).at[..., 0].set(True)
        left = jnp.concatenate([jnp.where(kept, -jnp.inf, best), log_tail[..., None]], axis=-1)
        log_tail = jax.nn.logsumexp(left, axis=-1).astype(jnp.float32)
        ids, best = jnp.where(kept, ids, vocabulary), jnp.where(kept, best, -jnp.inf)
        overflow = sparse.or_nan(beyond > 1 - p, log_probs)
        measures = {"tail_mass": c.worst(jnp.exp(log_tail)), "overflow": c.worst(overflow)}
        return write(ids, best, log_tail), measures

    return Codec(fields, encode, decode, ruled_out=True)


def _valued(
    tokens: tuple[int, ...],
    k: int,
    vocabulary: int,
    largest: int,
    values: str,
    packed: bool,
    missing: str,
) -> tuple[dict[str, jax.ShapeDtypeStruct], Callable[..., Arrays], Callable[..., Any]]:
    """Fields for ids up to ``largest``, log-probabilities and tail; how to write and read them."""
    c.one_of("values", values, c.FLOATS)
    field, write_ids, read_ids = sparse.id_field((*tokens, k), largest, packed)
    fields = {
        "ids": field,
        "values": jax.ShapeDtypeStruct((*tokens, k), jnp.dtype(values)),
        "log_tail": jax.ShapeDtypeStruct(tokens, jnp.float32),
    }

    def write(ids: jax.Array, log_probs: jax.Array, log_tail: jax.Array) -> Arrays:
        return {"ids": write_ids(ids), "values": log_probs.astype(values), "log_tail": log_tail}

    def read(stored: Mapping[str, jax.Array]) -> Any:
        ids = read_ids(stored["ids"])
        return sparse.seen(ids, stored["values"], stored["log_tail"], vocabulary, missing)

    return fields, write, read


def sampled(
    spec: jax.ShapeDtypeStruct,
    *,
    draws: int = 50,
    slots: int = 24,
    packed: bool = False,
    temperature: float = 1.0,
    missing: str = "sampled",
) -> Codec:
    """Independent draws from the teacher, by the record's own key: distinct classes and counts.

    The shares ``count / draws`` are unbiased, and so is the gradient of
    :func:`jaxdistill.losses.sparse_kl` with ``missing="sampled"``, as long as nothing overflows.

    Args:
        spec: logits of one record, ``[..., V]``.
        draws: 1 to 255.
        slots: distinct classes that are kept, 1 to ``draws``: those drawn most, and of those drawn
            equally often the ones drawn first.
        packed: as for :func:`top_p`.
        temperature: as there.
        missing: as there.

    Returns:
        A codec whose ``log_probs`` are the logs of the shares and whose ``log_tail`` is that of the
        share lost. It measures ``overflow``, the largest share that a token lost.

    Raises:
        ValueError: for settings out of range or unknown.

    References:
        Anshumann, Zaidi, Kedia and others 2025, "Sparse logit sampling" (arXiv 2503.16870).

    Example:
        >>> codec = sampled(jax.ShapeDtypeStruct((4,), jnp.float32), draws=8, slots=4)
        >>> keys = jax.random.split(jax.random.key(0), 1)
        >>> fields, measures = codec.encode(jnp.array([[0.0, 9.0, 99.0, 9.0]]), keys)
        >>> jnp.exp(codec.decode(fields))
        Array([[0., 0., 1., 0.]], dtype=float32)
    """
    tokens, vocabulary = sparse.common(spec, temperature, missing)
    c.within("draws", draws, 1, 255)
    c.within("slots", slots, 1, draws)
    field, write_ids, read_ids = sparse.id_field((*tokens, slots), vocabulary, packed)

    def one(key: jax.Array, probs: jax.Array) -> tuple[jax.Array, jax.Array]:
        drawn = draw(key, probs, draws)
        same = drawn[:, None] == drawn[None, :]
        first = jnp.argmax(same, axis=1) == jnp.arange(draws)
        counts, places = jax.lax.top_k(jnp.where(first, jnp.sum(same, axis=1), 0), slots)
        return jnp.where(counts > 0, drawn[places], vocabulary), counts

    def encode(logits: jax.Array, keys: jax.Array) -> tuple[Arrays, Arrays]:
        log_probs = sparse.log_probs(logits, spec, temperature)
        probs = jnp.exp(log_probs).reshape(len(log_probs), -1, vocabulary)
        places = jnp.arange(probs.shape[1])
        token_keys = jax.vmap(lambda key: jax.vmap(partial(jax.random.fold_in, key))(places))(keys)
        ids, counts = jax.vmap(jax.vmap(one))(token_keys, probs)
        ids, counts = (x.reshape(len(probs), *tokens, slots) for x in (ids, counts))
        lost = sparse.or_nan(1 - jnp.sum(counts, axis=-1) / draws, log_probs)
        stored = {"ids": write_ids(ids), "counts": counts.astype(jnp.uint8)}
        return stored, {"overflow": c.worst(lost)}

    def decode(stored: Mapping[str, jax.Array]) -> Any:
        counts = stored["counts"].astype(jnp.int32)
        lost = draws - jnp.sum(counts, axis=-1)
        log_probs, log_tail = (jnp.log(x.astype(jnp.float32) / draws) for x in (counts, lost))
        return sparse.seen(read_ids(stored["ids"]), log_probs, log_tail, vocabulary, missing)

    counts_field = jax.ShapeDtypeStruct((*tokens, slots), jnp.uint8)
    return Codec({"ids": field, "counts": counts_field}, encode, decode, ruled_out=True)


def draw(key: jax.Array, probs: jax.Array, draws: int) -> jax.Array:
    """Independent classes from one distribution ``[V]``, as ``[draws]`` int32.

    Inverts the distribution function twice, for a run of about ``sqrt(V)`` classes and for a class
    of it: a uniform float32 has 23 bits, too few to tell the rare ones of a large vocabulary apart,
    and Gumbel noise would be ``draws`` numbers a class. A class without mass is never drawn.

    Example:
        >>> draw(jax.random.key(0), jnp.array([0.0, 0.0, 1.0, 0.0]), 3)
        Array([2, 2, 2], dtype=int32)
    """
    width = math.isqrt(len(probs) - 1) + 1
    runs = jnp.pad(probs, (0, -len(probs) % width)).reshape(-1, width)
    for_run, for_class = jax.random.uniform(key, (2, draws), probs.dtype)
    run = _inverse(jnp.broadcast_to(jnp.sum(runs, axis=1), (draws, len(runs))), for_run)
    return (run * width + _inverse(runs[run], for_class)).astype(jnp.int32)


def _inverse(masses: jax.Array, uniform: jax.Array) -> jax.Array:
    """The first place with mass where the running sum of ``[draws, n]`` is above its share."""
    # Sums that are taken in parallel may fall a little from place to place, so their maximum counts
    # as the total, and places without mass are taken out.
    reached = jnp.where(masses > 0, jnp.cumsum(masses, axis=-1), 0)
    return jnp.argmax(reached > (uniform * jnp.max(reached, axis=-1))[:, None], axis=-1)


def polynomial(
    spec: jax.ShapeDtypeStruct,
    *,
    k: int,
    exact: int = 16,
    terms: Sequence[int | str] = (0, 1, 2, "sqrt", "exp"),
    dtype: str = "float32",
    bins: Iterable[Sequence[int]] = (),
    delta: bool = False,
    temperature: float = 1.0,
    missing: str = "uniform",
) -> Codec:
    """The ``k`` best classes, their log-probabilities as a curve in the rank; ids are packed.

    The first ``exact`` are kept; the others are a sum of terms in the rank, which starts at 0 after
    the exact ones, fitted by least squares. The form is DistillKit's.

    Args:
        spec: logits of one record, ``[..., V]``.
        k: 1 to V.
        exact: 0 to ``k``.
        terms: powers of the rank, ``"sqrt"``, and ``"exp"``, which is ``exp(-rank)``; at most ``k -
            exact``, none where ``exact`` is ``k``.
        dtype: of the exact values: ``"float16"``, ``"bfloat16"`` or ``"float32"``. Coefficients and
            scales are float32.
        bins: pairs (ranks, bits), from the first rank after the exact ones on: what the curve
            misses, in ``2^bits`` steps of the largest miss in the bin over ``2^(bits - 1)``.
        delta: fit the differences of neighbours instead. Errors add up along the ranks.
        temperature: as for :func:`top_k`.
        missing: as there.

    Returns:
        A codec that measures ``tail_mass``, as :func:`top_k`, and ``error``, the largest difference
        of a log-probability after reading, ``inf`` where one of the ``k`` classes has no mass. Its
        known and missing mass sum to 1 as far as the curve fits.

    Raises:
        ValueError: for settings out of range or unknown.

    Example:
        >>> spec = jax.ShapeDtypeStruct((100,), jnp.float32)
        >>> codec = polynomial(spec, k=20, exact=4, terms=[0, 1])
        >>> keys = jax.random.split(jax.random.key(0), 1)
        >>> fields, measures = codec.encode(jnp.arange(100.0)[None], keys)
        >>> float(measures["error"][0]) < 1e-5
        True
    """
    tokens, vocabulary = sparse.common(spec, temperature, missing)
    c.one_of("dtype", dtype, c.FLOATS)
    c.within("k", k, 1, vocabulary)
    c.within("exact", exact, 0, k)
    c.flag("delta", delta)
    sizes = tuple(tuple(size) if isinstance(size, Sequence) else (size,) for size in bins)
    form = curves.Form(k, exact, tuple(terms), dtype, sizes, delta)
    curves.check(form)
    field, write_ids, read_ids = sparse.id_field((*tokens, k), vocabulary - 1, True)

    def encode(logits: jax.Array, keys: jax.Array) -> tuple[Arrays, Arrays]:
        best, ids, log_tail = sparse.most_probable(sparse.log_probs(logits, spec, temperature), k)
        curve = curves.compress(form, best)
        measures = {
            "tail_mass": c.worst(jnp.exp(log_tail)),
            "error": c.worst(jnp.abs(curves.expand(form, curve) - best)),
        }
        return {"ids": write_ids(ids), **curve, "log_tail": log_tail}, measures

    def decode(stored: Mapping[str, jax.Array]) -> Any:
        log_probs = curves.expand(form, stored)
        return sparse.seen(
            read_ids(stored["ids"]), log_probs, stored["log_tail"], vocabulary, missing
        )

    fields = {
        "ids": field,
        **curves.fields(form, tokens),
        "log_tail": jax.ShapeDtypeStruct(tokens, jnp.float32),
    }
    return Codec(fields, encode, decode)
