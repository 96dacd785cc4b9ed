"""Files that hold rows of bytes: written at once, read in any order.

- ``array_record``: one record a group, read in parallel by the library that Grain reads with; for
  many readers and large sets.
- ``npy``: a memory map; the quickest on one host, and it needs nothing.
- ``zarr``: version 3 by TensorStore, one row a chunk, a thousand chunks a shard, so that single
  rows are read from remote stores.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Read = Callable[[np.ndarray], np.ndarray]


class Container(NamedTuple):
    """A file format for rows.

    Attributes:
        suffix: how names end.
        write: ``(path, rows uint8 [n, width])``, all at once.
        open: ``(path, n, width) -> read``, with ``read(positions [B]) -> uint8 [B, width]``.
    """

    suffix: str
    write: Callable[[Path, np.ndarray], None]
    open: Callable[[Path, int, int], Read]


def _write_npy(path: Path, rows: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, rows, allow_pickle=False)


def _open_npy(path: Path, count: int, width: int) -> Read:
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as fault:
        raise OSError(f"{path} cannot be read: {fault}") from fault
    if rows.shape != (count, width) or rows.dtype != np.uint8:
        raise OSError(f"{path} holds {rows.dtype}{list(rows.shape)}, not uint8[{count}, {width}]")
    return lambda positions: rows[positions]


def _array_record() -> Any:
    try:
        from array_record.python import array_record_module  # type: ignore[attr-defined]
    except ImportError as fault:
        raise ImportError(
            "the container 'array_record' needs array_record: pip install 'jaxdistill[tfds]', or "
            "take the container 'npy'"
        ) from fault
    return array_record_module


def _write_array_record(path: Path, rows: np.ndarray) -> None:
    # Compression gains nothing: the codecs leave hardly any redundancy.
    writer = _array_record().ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    try:
        for row in rows:
            writer.write(row.tobytes())
        writer.close()
    except RuntimeError as fault:  # a full disk among others
        raise OSError(str(fault)) from fault


def _open_array_record(path: Path, count: int, width: int) -> Read:
    try:
        reader = _array_record().ArrayRecordReader(
            str(path), "readahead_buffer_size:0", file_reader_buffer_size=32768
        )
        found = reader.num_records()
    except (RuntimeError, ValueError, IndexError) as fault:
        raise OSError(f"{path} cannot be read: {str(fault).splitlines()[0]}") from fault
    if found != count:
        raise OSError(f"{path} holds {found} rows, not {count}")

    def read(positions: np.ndarray) -> np.ndarray:
        try:
            records = reader.read(positions.tolist())
        except (RuntimeError, ValueError, IndexError) as fault:
            raise OSError(f"{path} cannot be read: {str(fault).splitlines()[0]}") from fault
        return np.frombuffer(b"".join(records), np.uint8).reshape(len(positions), width)

    return read


_ROWS_OF_SHARD = 1000


def _write_zarr(path: Path, rows: np.ndarray) -> None:
    import tensorstore

    count, width = rows.shape
    inner: Any = [{"name": "bytes"}, {"name": "crc32c"}]
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [1, width],
            "codecs": inner,
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, inner[1]],
        },
    }
    grid = {
        "name": "regular",
        "configuration": {"chunk_shape": [min(count, _ROWS_OF_SHARD), width]},
    }
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "metadata": {
            "shape": [count, width],
            "data_type": "uint8",
            "chunk_grid": grid,
            "codecs": [sharding],
        },
    }
    try:
        tensorstore.open(spec, create=True).result().write(rows).result()
    except ValueError as fault:
        if "os_error_code" not in str(fault):
            raise
        raise OSError(_short(fault)) from fault


def _open_zarr(path: Path, count: int, width: int) -> Read:
    import tensorstore

    kvstore = {"driver": "file", "path": f"{path}/"}
    try:
        rows = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, open=True).result()
    except ValueError as fault:
        raise OSError(f"{path} cannot be read: {_short(fault)}") from fault
    if rows.shape != (count, width):
        raise OSError(f"{path} holds rows of shape {list(rows.shape)}, not [{count}, {width}]")

    def read(positions: np.ndarray) -> np.ndarray:
        try:
            return rows[positions, :].read().result()
        except ValueError as fault:
            raise OSError(f"{path} cannot be read: {_short(fault)}") from fault

    return read


def _short(fault: Exception) -> str:
    return str(fault).split(" [source locations")[0].split(" [tensorstore_spec")[0][:300]


CONTAINERS: dict[str, Container] = {
    "array_record": Container(".array_record", _write_array_record, _open_array_record),
    "npy": Container(".npy", _write_npy, _open_npy),
    "zarr": Container(".zarr", _write_zarr, _open_zarr),
}
"""Containers by name."""
