"""Targets read from disk: what a teacher gave once, decoded within the step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data.ids import Ids
from jaxdistill.data.records import Records, Source, through
from jaxdistill.data.seeded import with_partner
from jaxdistill.store import Codec, Store, manifest
from jaxdistill.store.reader import find
from jaxdistill.targets.live import Targets

# What a batch calls the stored fields: "cached/<source>/<name>/<field>".
CACHED = "cached/"
# The fields of a row that say whose it is.
HEADER = ("id", "tokens", "view_seed", "partner", "partner/view_seed", "pair_seed")
# Of so many records a hash of their content is kept.
SAMPLES = 16


def cached(
    codecs: Mapping[str, Codec], source: str = "teacher", names: Sequence[str] = ("out",)
) -> Targets:
    """A teacher's arrays from the batch, as :func:`jaxdistill.targets.live` would give them.

    Args:
        codecs: of every stored output, by ``"<source>/<name>"``.
        source: whose outputs.
        names: which of them: ``"out"`` and taps.

    Returns:
        A function to ``{<name>: ...}``.

    Raises:
        ValueError: for an output that is not stored; at trace time, for a batch without stored
            fields.
    """
    for name in names:
        if f"{source}/{name}" not in codecs:
            raise ValueError(unknown("stored output", f"{source}/{name}", codecs))

    def targets(sources, batch, key, step) -> dict[str, Any]:
        return {
            name: decoded(codecs[f"{source}/{name}"], f"{source}/{name}", batch) for name in names
        }

    return targets


def decoded(codec: Codec, output: str, batch: Mapping[str, Any]) -> Any:
    """One stored output of a batch."""
    fields = {field: f"{CACHED}{output}/{field}" for field in codec.fields}
    for column in fields.values():
        if column not in batch:
            raise ValueError(
                f"the batch has no {column!r}: its records are to be read through "
                "targets.attach(source, store)"
            )
    return codec.decode({field: batch[column] for field, column in fields.items()})


def attach(source: Source, store: Store) -> Source:
    """Records together with what a store holds of them, view by view.

    Args:
        source: the records, or some of those, that the store was written for, in any order.
        store: see :func:`jaxdistill.store.open_store`.

    Returns:
        A source with one record for every stored view. Added are the seeds of the view and the
        partner of a mixed pair, see :mod:`jaxdistill.data.seeded`, and the stored fields as
        ``cached/<output>/<field>``. Views that the store has left out as damaged are left out.

    Raises:
        ValueError: for records that the store does not hold, or that have another content than the
            teacher saw (a few are compared); while reading, for tokens that are not
            those the teacher saw, and for partners that are not in the source.
    """
    own_digests = manifest.digests(source.ids)
    places = store.positions(source.ids)
    _refuse_other_content(source, own_digests, store)
    rows = (np.arange(store.views)[:, None] * store.records + places).ravel()
    own = np.tile(np.arange(len(source)), store.views)
    kept = store.readable[rows]
    if not kept.any():
        raise ValueError(f"{store.path} has no readable row of {source.name!r}")
    rows, own = rows[kept], own[kept]

    def read(positions: np.ndarray) -> Records:
        row, position = rows[positions], own[positions]
        found, columns = store.read(row), source.read(position)
        if (found["id"] != own_digests[position]).any():
            raise ValueError(f"{store.path}: its rows are not those of its index")
        if "tokens" in found:
            other = (found["tokens"] != token_digests(columns["tokens"])).any(1)
            if other.any():
                raise ValueError(
                    f"the tokens of {source.ids[int(position[other.argmax()])]!r} are not those "
                    f"that the teacher of {store.path} saw: tokenizer, packing or text have changed"
                )
        columns["view_seed"] = found["view_seed"]
        if "pair_seed" in found:
            partner = find(own_digests, found["partner"])
            if (partner < 0).any():
                raise ValueError(
                    f"{source.name!r} lacks records that others were mixed with in {store.path}: "
                    "a part of the records can be used only of stores without mixing"
                )
            columns |= with_partner(
                source.read(partner), found["partner/view_seed"], found["pair_seed"]
            )
        return columns | {
            f"{CACHED}{name}": value for name, value in found.items() if name not in HEADER
        }

    stored = {key: store.manifest.get(key) for key in ("identity", "index", "files")}
    return Source(
        source.name,
        Ids(len(rows), lambda i: f"{source.ids[int(own[i])]}#{rows[i] // store.records}"),
        through(source, read, own, lambda: json.dumps(stored, sort_keys=True, default=str)),
        {**source.info, "views": store.views},
        None if source.read_labels is None else lambda: source.labels()[own],
    )


def token_digests(tokens: np.ndarray) -> np.ndarray:
    """uint8 ``[B, 8]``, a hash of each row of tokens, whatever integers hold them."""
    rows = np.ascontiguousarray(tokens, "<i8")
    joined = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(joined, np.uint8).reshape(len(rows), 8)


def content(records: Records) -> list[str]:
    """A hash of each record's arrays, labels aside, which may be corrected or left out."""
    names = sorted(set(records) - {"label", "index", "group"})
    size = len(next(iter(records.values())))
    found = []
    for i in range(size):
        state = hashlib.blake2b(digest_size=8)
        for name in names:
            state.update(f"{name} {records[name].dtype} {records[name].shape[1:]}".encode())
            state.update(np.ascontiguousarray(records[name][i]).tobytes())
        found.append(state.hexdigest())
    return found


def _refuse_other_content(source: Source, digests: np.ndarray, store: Store) -> None:
    known = store.manifest.get("samples", {})
    places = find(digests, manifest.digests(list(known)))
    here = places >= 0
    if not here.any():
        return
    hashes = content(source.read(places[here]))
    for name, stored, found in zip(
        np.array(list(known))[here], np.array(list(known.values()))[here], hashes, strict=True
    ):
        if stored != found:
            raise ValueError(
                f"record {str(name)!r} of {source.name!r} has not the content that the teacher of "
                f"{store.path} saw: its hash is {stored} there, {found} now"
            )
