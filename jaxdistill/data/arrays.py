"""Records in memory, and what arrays must be to be records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill.data.content import record_hashes
from jaxdistill.data.ids import numbered, unique_ids
from jaxdistill.data.records import Reader, Source


def arrays(
    columns: Mapping[str, Any],
    ids: Sequence[str] | None = None,
    name: str = "arrays",
    info: Mapping[str, Any] | None = None,
) -> Source:
    """Records in memory, or in memory-mapped files: one array per name, records on the first axis.

    Args:
        columns: ``{name: array [n, ...]}``. Images are ``[n, H, W, C]``, uint8 in 0..255 or
            floating in [0, 1]. Integer labels become int32; everything else keeps its type.
        ids: the identity of every record; ``"<name>/0000"`` and so on if not given.
        name: what the set is called.
        info: more to know about the set, e.g. ``class_names``; it overrides what the arrays say.

    Raises:
        ValueError: for no arrays or no records, lengths that differ, ids that differ in number or
            are not unique, for whole labels that 32 bits do not hold, and for an array of objects
            or strings, which no device holds.
    """
    columns = {key: np.asanyarray(value) for key, value in columns.items()}
    length = _length(name, columns)
    if ids is None:
        ids = numbered(name, length)
    elif len(ids) != length:
        raise ValueError(f"{name!r} has {length} records but {len(ids)} ids")
    else:
        ids = unique_ids(name, tuple(map(str, ids)))

    known: dict[str, Any] = {}
    if "image" in columns:
        known["image_shape"] = columns["image"].shape[1:]
    label = columns.get("label")
    if label is not None:
        columns["label"] = label = narrowed(name, ids, label)
        if label.ndim == 1 and label.dtype.kind == "i":
            known["classes"] = int(label.max()) + 1

    return Source(
        name,
        ids,
        Reader(
            lambda indices: {key: value[indices] for key, value in columns.items()},
            lambda: record_hashes(columns),
        ),
        {**known, **(info or {})},
        None if label is None else lambda: columns["label"],
    )


def _length(name: str, columns: Mapping[str, np.ndarray]) -> int:
    """How many records there are in arrays that can be records."""
    if not columns:
        raise ValueError(
            f"{name!r} has no arrays: give at least one, e.g. {{'image': ..., 'label': ...}}"
        )
    if "index" in columns:
        raise ValueError(f"{name!r} has an array called 'index': that name is kept for positions")
    first = next(iter(columns))
    for key, value in columns.items():
        if value.dtype.kind not in "biufcV" or value.dtype.hasobject:
            raise ValueError(
                f"{name!r}: {key!r} has dtype {value.dtype}, which is not numeric: {_encode(key)}"
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
    if not len(columns[first]):
        raise ValueError(f"{name!r} is empty: {first!r} has shape {columns[first].shape}")
    return len(columns[first])


def _encode(key: str) -> str:
    if key == "label":
        return (
            "number the classes, e.g. names, label = np.unique(label, return_inverse=True), and "
            "give info={'class_names': tuple(names)}"
        )
    return "text and objects must be encoded first, and strings that identify a record go into ids"


def narrowed(name: str, ids: Sequence[str], label: np.ndarray) -> np.ndarray:
    """Whole labels as int32, refused where they would become others; scores stay as they are."""
    if label.dtype.kind not in "iub":
        return label
    narrow = label.astype(np.int32)
    if (other := narrow != label).any():
        row = int(np.argmax(other.reshape(len(label), -1).any(1)))
        value = label[row].ravel()[other[row].ravel()][0] if label.ndim > 1 else label[row]
        raise ValueError(
            f"{name!r}: the label of {ids[row]!r} is {value}, which 32 bits do not hold; "
            f"{int(other.sum())} labels are like that"
        )
    return narrow
