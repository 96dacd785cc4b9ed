"""What a set of records is: a length, an identity for every record, and a way to read many at once.

A :class:`Source` never shuffles, splits or batches. :func:`jaxdistill.data.arrays.arrays` makes one
of arrays; :func:`subset`, :func:`filter_labels` and :func:`concatenate` make others of it;
:mod:`jaxdistill.data.sources` reads them from files.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data.content import digest, record_hashes, row_hashes
from jaxdistill.data.ids import Ids, unique_ids
from jaxdistill.progress import shown

Records = dict[str, np.ndarray]
"""Arrays with records on the first axis, by name."""

_CHUNK = 1024
# Of records whose content is not known beforehand so many are read for a fingerprint.
_SAMPLES = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """A function that reads records and knows what they hold without reading them one by one.

    The ``read`` of a :class:`Source` may be one. What is known belongs to the function: a source
    that is given another one knows nothing of it.

    Attributes:
        read: ``indices [B] -> {name: array [B, ...]}``.
        contents: ``() -> uint64 [n]``, a number for what each record holds, labels aside.
        identity: ``() -> str``, what all records together depend on, where that is more, or known
            sooner, than their contents and labels.
        check: ``() -> None``, refuses what could not be read later.
    """

    read: Callable[[np.ndarray], Records]
    contents: Callable[[], np.ndarray] | None = None
    identity: Callable[[], str] | None = None
    check: Callable[[], None] | None = None

    def __call__(self, indices: np.ndarray) -> Records:
        return self.read(indices)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Records that can be read in any order.

    Attributes:
        name: what the set is called; it begins most ids.
        ids: the stable identity of every record, any string. Splits, caches and subsets use it,
            never the position.
        read: ``indices [B] -> {name: array [B, ...]}``, a whole batch of records at once; a
            function, or a :class:`Reader`.
        info: what is known beforehand: ``image_shape`` (H, W, C), ``classes``, ``class_names``,
            ``groups``; of image files ``fit`` and ``resample``, how they become squares;
            of texts ``encoding``, the tokenizer; ``inputs``, the entries that nets see, where
            these are neither images nor texts;
            ``hidden``, where -1 is a hidden label; ``declared``, where the labels were checked
            against the classes when the set was written.
        read_labels: ``() -> [n]``, all labels without their records, where that is cheap.

    Example:
        >>> from jaxdistill.data.sources import arrays
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
        found = []
        for records in self._chunks(np.arange(len(self))):
            if "label" not in records:
                raise KeyError(
                    f"the records of {self.name!r} have no 'label': they hold {sorted(records)}"
                )
            found.append(records["label"])
        return np.concatenate(found)

    def contents(self) -> np.ndarray:
        """A number for what each record holds, labels aside, equal for equal ones; uint64 ``[n]``.

        Reads every record where the source cannot do better.
        """
        known = self._known("contents")
        if known is not None:
            return known()
        chunks = self._chunks(np.arange(len(self)))
        return np.concatenate([record_hashes(records) for records in chunks])

    @property
    def knows_contents(self) -> bool:
        """Whether :meth:`contents` is cheap."""
        return self._known("contents") is not None

    def fingerprint(self) -> str:
        """A name for what the source holds: another one for other ids, records, labels or order.

        Arrays are looked through at the speed of memory. Of image files names, sizes and some bytes
        count, and only those files are looked at again whose size or time has changed. Of a source
        whose ``read`` is a plain function up to 4,096 records, evenly spread, are read.

        Example:
            >>> from jaxdistill.data.sources import arrays
            >>> images = np.zeros((3, 2, 2, 1), np.uint8)
            >>> source = arrays({"image": images})
            >>> source.fingerprint() == arrays({"image": images.copy()}).fingerprint()
            True
            >>> source.fingerprint() == arrays({"image": images + 1}).fingerprint()
            False
        """
        identity, contents = self._known("identity"), self._known("contents")
        if identity is not None:
            return digest(self._all_ids, identity())
        if contents is not None:
            labels = [row_hashes(self.labels())] if self.read_labels is not None else []
            return digest(self._all_ids, contents(), *labels)
        chosen = np.unique(np.linspace(0, len(self) - 1, min(len(self), _SAMPLES)).astype(np.int64))
        read = [
            row_hashes(records[name], name)
            for records in self._chunks(chosen)
            for name in sorted(records)
        ]
        return digest(self._all_ids, *read)

    def check(self) -> None:
        """Refuses files that could not be read later, as far as their beginnings and ends say.

        Raises:
            ValueError: naming the files.
        """
        known = self._known("check")
        if known is not None:
            known()

    def _known(self, what: str) -> Callable[[], Any] | None:
        return getattr(self.read, what, None) if isinstance(self.read, Reader) else None

    def _chunks(self, indices: np.ndarray) -> Iterator[Records]:
        starts = range(0, len(indices), _CHUNK)
        for start in shown(starts, f"read {self.name or 'records'}", "blocks"):
            yield self.read(indices[start : start + _CHUNK])

    @functools.cached_property
    def _all_ids(self) -> str:
        return digest("\0".join(self.ids))


def through(
    source: Source,
    read: Callable[[np.ndarray], Records],
    at: np.ndarray | None = None,
    changes: Callable[[], str] | None = None,
) -> Reader:
    """What reads records by way of another source, and knows what that one knows.

    Args:
        source: the other one.
        read: ``indices [B] -> {name: array [B, ...]}``.
        at: where each record is from; the same place if not given.
        changes: what the records depend on besides; None if ``at`` says it all.
    """
    known, identity = source._known("contents"), source._known("identity")

    def whole() -> str:
        parts = [] if at is None else [at]
        parts += [] if changes is None else [changes()]
        return digest(source.fingerprint(), *parts)

    def contents() -> np.ndarray:
        found = source.contents()
        return found if at is None else found[at]

    return Reader(
        read,
        None if known is None else contents,
        None if identity is None and changes is None else whole,
        source.check,
    )


def _check_inside(source: Source, indices: np.ndarray) -> None:
    if indices.size and (indices.min() < 0 or indices.max() >= len(source)):
        raise IndexError(
            f"{source.name!r} holds {len(source)} records, but positions from {indices.min()} to "
            f"{indices.max()} were asked for"
        )


def by_reading(read: Callable[[np.ndarray], Records], count: int) -> Callable[[], np.ndarray]:
    """The contents of records that are cheap to read, see :class:`Reader`."""
    return Source("", Ids(count, str), read).contents


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
        through(source, lambda i: source.read(indices[i]), indices),
        source.info,
        None if source.read_labels is None else lambda: source.labels()[indices],
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
        ValueError: for no sources, records of other keys, shapes or types, or an id that appears
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

    def check() -> None:
        for source in sources:
            source.check()

    known = {key: value for key, value in sources[0].info.items() if key != "groups"}
    for key in ("hidden", "declared"):
        if not all(source.info.get(key) for source in sources):
            known.pop(key, None)
    if all("classes" in source.info for source in sources):
        known["classes"] = max(source.info["classes"] for source in sources)
    return Source(
        name,
        unique_ids(name, Ids(int(starts[-1]), identity)),
        Reader(
            read,
            lambda: np.concatenate([source.contents() for source in sources]),
            lambda: digest(*(source.fingerprint() for source in sources)),
            check,
        ),
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
