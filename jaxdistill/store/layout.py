"""How the arrays of a record become one row of bytes, and back."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_CHECKSUM = 4  # bytes of CRC-32 at the end of every row


class Layout(NamedTuple):
    """The fields of a row in order. All rows are equally long, so that a row is found by counting.

    Attributes:
        fields: the shape and type of each field of one record.

    Example:
        >>> layout = Layout({"label": jax.ShapeDtypeStruct((), jnp.int32)})
        >>> rows = layout.pack({"label": np.array([3, 5], np.int32)})
        >>> rows.shape, layout.unpack(rows)["label"]
        ((2, 8), array([3, 5], dtype=int32))
    """

    fields: Mapping[str, jax.ShapeDtypeStruct]

    @property
    def width(self) -> int:
        """Bytes of a row, its checksum included."""
        return sum(map(_size, self.fields.values())) + _CHECKSUM

    def pack(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Rows ``uint8 [n, width]`` of arrays ``[n, ...]``, each with its checksum.

        Raises:
            ValueError: for arrays of another name, shape or type than the fields.
        """
        if arrays.keys() != self.fields.keys():
            raise ValueError(f"fields are {sorted(self.fields)}, but arrays {sorted(arrays)}")
        pieces = []
        for name, field in self.fields.items():
            array = np.asarray(arrays[name])
            if array.shape[1:] != field.shape or array.dtype != field.dtype:
                raise ValueError(
                    f"field {name!r} is {field.dtype}{list(field.shape)} a record, but the array "
                    f"is {array.dtype}{list(array.shape[1:])}"
                )
            array = np.ascontiguousarray(array).reshape(len(array), -1)
            pieces.append(array.view(np.uint8).reshape(len(array), -1))
        content = np.concatenate(pieces, axis=1)
        return np.concatenate([content, _checksums(content)], axis=1)

    def unpack(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of rows; checksums are not looked at, see :func:`damaged`."""
        arrays, start = {}, 0
        for name, field in self.fields.items():
            end = start + _size(field)
            piece = np.ascontiguousarray(rows[:, start:end])
            arrays[name] = piece.view(field.dtype).reshape(len(rows), *field.shape)
            start = end
        return arrays

    def as_json(self) -> dict[str, Any]:
        """The layout for a manifest."""
        return {
            name: {"dtype": str(field.dtype), "shape": list(field.shape)}
            for name, field in self.fields.items()
        }


def from_json(data: Mapping[str, Any]) -> Layout:
    """The layout that a manifest holds."""
    return Layout(
        {
            name: jax.ShapeDtypeStruct(tuple(field["shape"]), jnp.dtype(field["dtype"]))
            for name, field in data.items()
        }
    )


def damaged(rows: np.ndarray) -> np.ndarray:
    """Which rows are not what was written, bool ``[n]``."""
    return (rows[:, -_CHECKSUM:] != _checksums(rows[:, :-_CHECKSUM])).any(1)


def row_checksums(rows: np.ndarray) -> list[str]:
    """The checksums at the end of rows, as text."""
    return [row[-_CHECKSUM:].tobytes().hex() for row in rows]


def ends_of(rows: int) -> np.ndarray:
    """The places of the rows by which a file is known: its first and its last."""
    return np.array([0, rows - 1])


def _checksums(content: np.ndarray) -> np.ndarray:
    content = np.ascontiguousarray(content)
    sums = np.array([zlib.crc32(row) for row in content], "<u4")
    return sums.view(np.uint8).reshape(len(content), _CHECKSUM)


def _size(field: jax.ShapeDtypeStruct) -> int:
    return math.prod(field.shape) * jnp.dtype(field.dtype).itemsize
