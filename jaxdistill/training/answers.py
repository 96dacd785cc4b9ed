"""What teachers say to batches of records: encoded on the device, fetched while the next is on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.data.augment import keys_of
from jaxdistill.data.records import Records
from jaxdistill.store import Codec
from jaxdistill.targets.cached import CACHED, HEADER, token_digests
from jaxdistill.training.sharding import global_batch

# Codecs draw from a fold of the view's key that no view and no mask takes.
_CODEC_FOLD = 2000


def encoder(cache: Any, own: Mapping[str, Codec]):
    """``(frozen, batch) -> (fields, measures, sound)``: the first two flat by ``<output>/<name>``,
    the last by output, bool ``[B]``: whether the teacher's answer is a number throughout."""

    def encode(frozen, batch):
        key = jax.random.key(cache.seed)
        found = cache.targets(frozen, cache.prepare(batch, key), key, 0)
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys_of(batch["view_seed"]), _CODEC_FOLD)
        fields, measures, fine = {}, {}, {}
        for number, (name, codec) in enumerate(own.items()):
            each = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            stored, measured = codec.encode(found[name], each)
            fields |= {f"{name}/{field}": value for field, value in stored.items()}
            measures |= {f"{name}/{measure}": value for measure, value in measured.items()}
            fine[name] = sound(found[name], codec)
        return fields, measures, fine

    return encode


def sound(values: jax.Array, codec: Codec) -> jax.Array:
    """Whether the values of each record are finite, bool ``[B]``; -inf, a class that is ruled out,
    may be among them where the codec keeps it, but not alone."""
    fine = jnp.isfinite(values) if jnp.issubdtype(values.dtype, jnp.inexact) else values == values
    if codec.ruled_out:
        some = fine.any(-1, keepdims=True) if values.ndim > 1 else fine
        fine = (fine | jnp.isneginf(values)) & some
    return fine.reshape(len(values), -1).all(1)


def in_flight(
    batches: Iterator[Records], encode: Any, on_batch: Any
) -> Iterator[tuple[Records, Records, Records, Records]]:
    """What each batch gives, one step behind, so that devices never wait for the host."""
    before = None
    for batch in batches:
        placed = {name: global_batch(x, on_batch) for name, x in inputs(batch).items()}
        now = (_head(batch), *encode(placed))
        if before is not None:
            yield _fetched(before)
        before = now
    if before is not None:
        yield _fetched(before)


def _fetched(step: Any) -> tuple[Records, Records, Records, Records]:
    head, *answers = step
    fields, measures, fine = map(_local, answers)
    return head, fields, measures, fine


def inputs(batch: Records) -> Records:
    """What the teachers may read of a batch."""
    return {k: v for k, v in batch.items() if k != "partner" and not k.startswith(CACHED)}


def _head(batch: Records) -> Records:
    head = {name: batch[name] for name in HEADER if name in batch and name != "tokens"}
    return head | ({"tokens": token_digests(batch["tokens"])} if "tokens" in batch else {})


def _local(arrays: Mapping[str, jax.Array]) -> Records:
    """Of each array the rows that lie on this process, in order."""
    return {name: _local_rows(array) for name, array in arrays.items()}


def _local_rows(array: jax.Array) -> np.ndarray:
    if array.is_fully_addressable:
        return np.asarray(array)
    pieces = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(pieces[start]) for start in sorted(pieces)])
