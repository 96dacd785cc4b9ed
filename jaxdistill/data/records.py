"""What a set of records is: a length, an identity for every record, and a way to read many at once.

A :class:`Source` never shuffles, splits or batches. :func:`arrays` makes one of arrays;
:func:`subset`, :func:`filter_labels` and :func:`concatenate` make others of it;
:mod:`jaxdistill.data.sources` reads them from files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill._errors import unknown

Records = dict[str, np.ndarray]

_LABEL_CHUNK = 1024


class Ids(Sequence[str]):
    """Record ids that are made when asked for, so that a set of millions holds no list of strings.

    Args:
        length: how many there are.
        at: the id at a position in ``0..length-1``.

    Example:
        >>> ids = Ids(3, "digits/{:04d}".format)
        >>> ids[1], ids[-1], len(ids)
        ('digits/0001', 'digits/0002', 3)
    """

    def __init__(self, length: int, at: Callable[[int], str]):
        self._length = length
        self._at = at

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position):
        if isinstance(position, slice):
            return [self._at(i) for i in range(*position.indices(self._length))]
        if not -self._length <= position < self._length:
            raise IndexError(
                f"there is no id at {position}: the source holds {self._length} records"
            )
        return self._at(int(position) % self._length)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Records that can be read in any order.

    Attributes:
        name: what the set is called; it begins most ids.
        ids: the stable identity of every record, any string. Splits, caches and subsets go by it,
            never by position.
        read: ``indices [B] -> {name: array [B, ...]}``, a whole batch of records at once.
        info: what is known beforehand: ``image_shape`` (H, W, C), ``classes``, ``class_names``,
            ``groups``.
        read_labels: ``() -> [n]``, all labels without their records, where that is cheap.

    Example:
        >>> source = arrays({"image": np.zeros((5, 2, 2, 1)), "label": np.arange(5)}, name="tiny")
        >>> len(source), source.ids[3], source.info["classes"]
        (5, 'tiny/0003', 5)
        >>> {key: value.shape for key, value in source.gather(np.array([4, 0])).items()}
        {'image': (2, 2, 2, 1), 'label': (2,), 'index': (2,)}
    """

    name: str
    ids: Sequence[str]
    read: Callable[[np.ndarray], Records]
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    read_labels: Callable[[], np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def gather(self, indices: np.ndarray) -> Records:
        """Reads a batch of records.

        Args:
            indices: positions in ``0..len(self)-1``, shape ``[B]``, in any order, repeats allowed.

        Returns:
            ``{name: array [B, ...]}``. ``index`` (int32) is always there: the positions that were
            asked for, so that a memory bank over this source has ``len(source)`` rows.

        Raises:
            IndexError: if a position lies outside the source.
        """
        indices = np.asarray(indices)
        _check_inside(self, indices)
        return {**self.read(indices), "index": indices.astype(np.int32)}

    def labels(self) -> np.ndarray:
        """All labels in order, ``[n]``; reads every record where the source cannot do better."""
        if self.read_labels is not None:
            return self.read_labels()
        chunks = range(0, len(self), _LABEL_CHUNK)
        read = [self.read(np.arange(i, min(i + _LABEL_CHUNK, len(self)))) for i in chunks]
        if "label" not in read[0]:
            raise KeyError(
                f"the records of {self.name!r} have no 'label': they hold {sorted(read[0])}"
            )
        return np.concatenate([records["label"] for records in read])


def _check_inside(source: Source, indices: np.ndarray) -> None:
    if indices.size and (indices.min() < 0 or indices.max() >= len(source)):
        raise IndexError(
            f"{source.name!r} holds {len(source)} records, but positions from {indices.min()} to "
            f"{indices.max()} were asked for"
        )


def numbered(name: str, length: int) -> Ids:
    # Four digits at least, and no more for a larger set: an id must not change when records are
    # appended.
    return Ids(length, lambda i: f"{name}/{i:04d}")


def arrays(
    columns: Mapping[str, Any],
    ids: Sequence[str] | None = None,
    name: str = "arrays",
    info: Mapping[str, Any] | None = None,
) -> Source:
    """Records in memory, or in memory-mapped files: an array a name, records on the first axis.

    Args:
        columns: ``{name: array [n, ...]}``. Images are ``[n, H, W, C]``, uint8 in 0..255 or
            floating in [0, 1]. Integer labels become int32; everything else keeps its type.
        ids: the identity of every record; ``"<name>/0000"`` and so on if not given.
        name: what the set is called.
        info: more to know about the set, e.g. ``class_names``; it goes before what the arrays tell.

    Raises:
        ValueError: for no arrays or no records, lengths that differ, ids that differ in number or
            are not unique.
        TypeError: for an array of objects or strings, which no device holds.
    """
    columns = {key: np.asanyarray(value) for key, value in columns.items()}
    if not columns:
        raise ValueError(
            f"{name!r} has no arrays: give at least one, e.g. {{'image': ..., 'label': ...}}"
        )
    if "index" in columns:
        raise ValueError(f"{name!r} has an array called 'index': that name is kept for positions")
    first = next(iter(columns))
    for key, value in columns.items():
        if value.dtype.kind not in "biufcV" or value.dtype.hasobject:
            raise TypeError(
                f"{name!r}: {key!r} has dtype {value.dtype}, which is not numeric: text and "
                "objects must be encoded first, and strings that identify a record go into ids"
            )
        if value.ndim == 0:
            raise ValueError(
                f"{name!r}: {key!r} is a single number, but needs records on its first axis"
            )
        if len(value) != len(columns[first]):
            raise ValueError(
                f"{name!r}: {first!r} has {len(columns[first])} records "
                f"but {key!r} has {len(value)}"
            )
    length = len(columns[first])
    if length == 0:
        raise ValueError(f"{name!r} is empty: {first!r} has shape {columns[first].shape}")
    if ids is None:
        ids = numbered(name, length)
    elif len(ids) != length:
        raise ValueError(f"{name!r} has {length} records but {len(ids)} ids")
    else:
        ids = _unique(name, tuple(map(str, ids)))

    known: dict[str, Any] = {}
    if "image" in columns:
        known["image_shape"] = columns["image"].shape[1:]
    label = columns.get("label")
    if label is not None and label.dtype.kind in "iu":
        columns["label"] = label = label.astype(np.int32)
        if label.ndim == 1:
            known["classes"] = int(label.max()) + 1

    return Source(
        name,
        ids,
        lambda indices: {key: value[indices] for key, value in columns.items()},
        {**known, **(info or {})},
        None if label is None else lambda: columns["label"],
    )


def _unique(name: str, ids: Sequence[str]) -> Sequence[str]:
    seen: set[str] = set()
    for each in ids:
        if each in seen:
            raise ValueError(f"{name!r} has two records with the id {each!r}")
        seen.add(each)
    return ids


def subset(source: Source, indices: Any, name: str | None = None) -> Source:
    """Some records of a source, in the order given; ids stay, and ``index`` counts from 0 again.

    Args:
        source: where the records come from.
        indices: positions there, integers ``[m]``, or booleans ``[n]`` that say which to keep.
        name: what the part is called; as the source if not given.

    Raises:
        ValueError: if nothing is kept or booleans do not match the source.
        IndexError: if a position lies outside the source.

    Example:
        >>> from jaxdistill.data.sources import digits
        >>> part = subset(digits(), np.arange(100, 110))
        >>> len(part), part.ids[0], part.gather(np.array([0]))["index"]
        (10, 'digits/0100', array([0], dtype=int32))
    """
    indices = np.asarray(indices)
    if indices.dtype == bool:
        if indices.shape != (len(source),):
            raise ValueError(
                f"{source.name!r} has {len(source)} records but the booleans have shape "
                f"{indices.shape}"
            )
        indices = np.flatnonzero(indices)
    if indices.size == 0:
        raise ValueError(f"no record of {source.name!r} is kept: the part is empty")
    if indices.dtype.kind not in "iu" or indices.ndim != 1:
        raise ValueError(
            f"positions must be a vector of integers, not {indices.dtype} of shape {indices.shape}"
        )
    _check_inside(source, indices)
    return Source(
        name or source.name,
        Ids(len(indices), lambda i: source.ids[int(indices[i])]),
        lambda i: source.read(indices[i]),
        source.info,
        lambda: source.labels()[indices],
    )


def filter_labels(source: Source, labels: Sequence[int]) -> Source:
    """The records whose label is one of ``labels``; labels keep their numbers.

    Raises:
        ValueError: if a label has no record.
    """
    present = source.labels()
    for label in labels:
        if not (present == label).any():
            raise ValueError(
                unknown(f"label of {source.name!r}", label, map(str, np.unique(present)))
            )
    return subset(source, np.isin(present, list(labels)))


def concatenate(sources: Sequence[Source], name: str | None = None) -> Source:
    """Several sources one after another; ``group`` (int32) says which one a record is from.

    Args:
        sources: with the same keys, shapes and types, and no id in common.
        name: what the whole is called; the names joined by ``+`` if not given.

    Returns:
        A source whose ``info["groups"]`` are the names of the parts, so that a stream can weigh
        them.

    Raises:
        ValueError: for no sources, records of unlike keys, shapes or types, or an id that appears
            twice.
    """
    if not sources:
        raise ValueError("there is nothing to concatenate: no source was given")
    firsts = [_layout(source) for source in sources]
    for source, layout in zip(sources[1:], firsts[1:], strict=True):
        if layout != firsts[0]:
            raise ValueError(
                f"{sources[0].name!r} has records {firsts[0]} but {source.name!r} has "
                f"{layout}: keys, shapes and types must agree"
            )
    name = name or "+".join(source.name for source in sources)
    starts = np.cumsum([0] + [len(source) for source in sources])

    def locate(index: Any) -> tuple[Any, Any]:
        group = np.searchsorted(starts, index, side="right") - 1
        return group, index - starts[group]

    def identity(index: int) -> str:
        group, inside = locate(index)
        return sources[int(group)].ids[int(inside)]

    def read(indices: np.ndarray) -> Records:
        group, inside = locate(indices)
        records: Records = {"group": group.astype(np.int32)}
        for number in np.unique(group):
            chosen = group == number
            for key, value in sources[number].read(inside[chosen]).items():
                if key == "group":
                    continue
                if key not in records:
                    records[key] = np.empty((len(indices), *value.shape[1:]), value.dtype)
                records[key][chosen] = value
        return records

    known = {key: value for key, value in sources[0].info.items() if key != "groups"}
    if all("classes" in source.info for source in sources):
        known["classes"] = max(source.info["classes"] for source in sources)
    return Source(
        name,
        _unique(name, Ids(int(starts[-1]), identity)),
        read,
        {
            **known,
            "groups": tuple(source.name for source in sources),
            "group_sizes": tuple(map(len, sources)),
        },
        lambda: np.concatenate([source.labels() for source in sources]),
    )


def _layout(source: Source) -> dict[str, str]:
    records = source.read(np.zeros(1, np.int64))
    return {
        key: f"{value.dtype}{list(value.shape[1:])}"
        for key, value in sorted(records.items())
        if key != "group"
    }
