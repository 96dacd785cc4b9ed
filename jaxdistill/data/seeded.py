"""Records with the seeds of their views: what is drawn of them is drawn once, and can be repeated.

A seeded record carries ``view_seed`` (uint32 ``[2]``, eight bytes), and for mixed pairs the
record it is mixed with under ``partner/...`` and a ``pair_seed``. :mod:`jaxdistill.data.views`
draws from these instead of the step's key, so that a view is a function of its record alone,
whichever batch or run it comes in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from jaxdistill.data.ids import Ids
from jaxdistill.data.records import Records, Source, through
from jaxdistill.store.manifest import digests

PARTNER = "partner/"
"""Entries of the record that a record is mixed with begin with this."""


def seeded(source: Source, views: int = 1, *, seed: int = 0, pairs: bool = False) -> Source:
    """A source in which every record appears with one or more views of its own.

    The seed of a view is a hash of the record's id, the number of the view and ``seed``: it does
    not change when records are left out or come in another order.

    Args:
        source: where the records come from.
        views: how many views of each.
        seed: another one gives other views.
        pairs: whether each view is mixed with that of another record, chosen at random.

    Returns:
        A source of ``views * len(source)`` records; number ``v * n + i`` is view ``v`` of record
        ``i``, with the id ``"<id>#<v>"``. Added are ``view_seed`` and, for pairs, ``pair_seed``,
        ``partner/view_seed``, every array of the partner as ``partner/<name>``, and ``partner``,
        the digest of its id (uint8 ``[16]``).

    Raises:
        ValueError: for fewer than one view, or pairs of a single record.

    Example:
        >>> from jaxdistill.data import sources
        >>> twice = seeded(sources.digits(), 2)
        >>> len(twice), twice.ids[1797], twice.gather(np.array([0, 1797]))["view_seed"].shape
        (3594, 'digits/0000#1', (2, 2))
    """
    if views < 1:
        raise ValueError(f"every record needs at least one view, got {views}")
    count = len(source)
    if pairs and count < 2:
        raise ValueError(f"{source.name!r} holds one record: there is no other to mix it with")

    def read(rows: np.ndarray) -> Records:
        view, position = np.divmod(rows, count)
        ids = [source.ids[int(i)] for i in position]
        columns = {**source.read(position), "view_seed": seeds("view", ids, view, seed)}
        if not pairs:
            return columns
        # A partner is any other record: a step of 1 to n - 1 from the own place.
        pair = seeds("pair", ids, view, seed)
        partner = (position + 1 + pair[:, 0].astype(np.int64) % (count - 1)) % count
        theirs = [source.ids[int(i)] for i in partner]
        partner_seed = seeds("partner", ids, view, seed)
        return (
            columns
            | with_partner(source.read(partner), partner_seed, pair)
            | {"partner": digests(theirs)}
        )

    return Source(
        source.name,
        Ids(views * count, lambda row: f"{source.ids[row % count]}#{row // count}"),
        through(
            source,
            read,
            np.tile(np.arange(count), views),
            lambda: f"{views} views of seed {seed}" + ", mixed in pairs" * pairs,
        ),
        {**source.info, "views": views},
        None if source.read_labels is None else lambda: np.tile(source.labels(), views),
    )


def with_partner(records: Records, view_seed: np.ndarray, pair_seed: np.ndarray) -> Records:
    """What a record carries of the one it is mixed with."""
    return {
        **{f"{PARTNER}{name}": value for name, value in records.items()},
        f"{PARTNER}view_seed": view_seed,
        "pair_seed": pair_seed,
    }


def seeds(kind: str, ids: Iterable[str], views: np.ndarray, seed: int) -> np.ndarray:
    """uint32 ``[B, 2]``, a hash of each id and view."""
    drawn = b"".join(
        hashlib.blake2b(f"{kind}/{seed}/{view}/{each}".encode(), digest_size=8).digest()
        for each, view in zip(ids, views.tolist(), strict=True)
    )
    return np.frombuffer(drawn, "<u4").reshape(-1, 2)
