"""Writing a store part by part, so that a writer that was killed resumes where it stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdistill._errors import unknown
from jaxdistill._files import checksum, give_name, read_sealed, write_sealed
from jaxdistill.store import manifest
from jaxdistill.store.containers import CONTAINERS
from jaxdistill.store.layout import Layout, ends_of, row_checksums

# Bytes of a part: what is lost at most when a writer is killed, and held in memory meanwhile.
PART = 2**26


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """A store that is being written; made by :func:`begin`.

    Attributes:
        path: its folder.
        layout: the fields of a row.
        container: a name of ``CONTAINERS``.
        first: the first row that this process writes.
        last: the row behind the last one it writes.
        part_rows: rows in each of its parts, but the last.
        process: which process this is.
        identity: what the store is of.
    """

    path: Path
    layout: Layout
    container: str
    first: int
    last: int
    part_rows: int
    process: int
    identity: Mapping[str, Any]

    def parts(self) -> list[tuple[int, int]]:
        """The parts of this process, ``(first row, row behind the last)``."""
        starts = range(self.first, self.last, self.part_rows)
        return [(start, min(start + self.part_rows, self.last)) for start in starts]

    def whole(self) -> int:
        """How many of its parts are whole already, counted from the first."""
        numbers = range(len(self.parts()))
        missing = (number for number in numbers if not self._record(number).exists())
        return next(missing, len(numbers))

    def write(
        self, number: int, arrays: Mapping[str, np.ndarray], measures: Mapping[str, np.ndarray]
    ) -> None:
        """Writes one part; it gets its name only when it is complete.

        Args:
            number: which, counted from 0.
            arrays: the fields of its rows, ``[n, ...]``.
            measures: numbers about each row, ``[n]``, of which mean and largest are kept.

        Raises:
            OSError: when it cannot be written, a full disk say. The parts before it stay, and the
                same call resumes after them once there is room.
        """
        first, last = self.parts()[number]
        rows = self.layout.pack(arrays)
        if len(rows) != last - first:
            raise ValueError(f"part {number} has {last - first} rows, but {len(rows)} were given")
        container = CONTAINERS[self.container]
        name = f"{self.process:03d}-{number:05d}{container.suffix}"
        temporary = self.path / f"{name}.part"
        _remove(temporary)
        try:
            container.write(temporary, rows)
            record = {
                "name": name,
                "first": first,
                "rows": last - first,
                "bytes": manifest.size(temporary),
                "checksum": checksum(temporary),
                "measures": {
                    key: {"sum": float(np.sum(value, dtype=np.float64)), "max": float(value.max())}
                    for key, value in measures.items()
                },
            }
            # What the disk took is read once more before it gets its name.
            ends = container.open(temporary, len(rows), self.layout.width)(ends_of(len(rows)))
            record["ends"] = row_checksums(ends)
            _remove(self.path / name)
            give_name(temporary, self.path / name)
            write_sealed(self._record(number), record)
        except OSError as fault:
            with contextlib.suppress(OSError):
                _remove(temporary)
            raise OSError(
                f"cannot write part {number} of {self.path}: {fault}. The {number} parts before it "
                "are whole: make room and run the same command again."
            ) from fault

    def finish(self, ids: Sequence[str], about: Mapping[str, Any]) -> None:
        """Writes the manifest once all processes have written their parts: one process calls it.

        Args:
            ids: of all records, in the order of the rows of the first view.
            about: more to know, JSON data that is not compared at opening.

        Raises:
            ValueError: if a part is missing.
        """
        files = [read_sealed(file) for file in sorted(self.path.glob("*.whole.json"))]
        files.sort(key=lambda file: file["first"])
        reached = 0
        for file in files:
            if file["first"] != reached:
                break
            reached += file["rows"]
        begun = manifest.read(self.path, manifest.BEGUN)
        if reached != begun["rows"]:
            raise ValueError(f"{self.path} lacks the part that begins with row {reached}")
        index = self.path / manifest.INDEX
        with (self.path / f"{index.name}.part").open("wb") as stream:
            np.save(stream, manifest.digests(ids), allow_pickle=False)
        give_name(self.path / f"{index.name}.part", index)
        measures = {
            key: {
                "mean": sum(file["measures"][key]["sum"] for file in files) / reached,
                "max": max(file["measures"][key]["max"] for file in files),
            }
            for key in files[0]["measures"]
        }
        files = [{key: value for key, value in f.items() if key != "measures"} for f in files]
        whole = {
            **begun,
            "records": len(ids),
            "files": files,
            "index": {"bytes": manifest.size(index), "checksum": checksum(index)},
            "measures": measures,
            **about,
        }
        manifest.write(self.path, whole)
        for file in [*self.path.glob("*.whole.json"), self.path / manifest.BEGUN]:
            file.unlink()

    def _record(self, number: int) -> Path:
        return self.path / f"{self.process:03d}-{number:05d}.whole.json"


def begin(
    path: Path | str,
    identity: Mapping[str, Any],
    layout: Layout,
    rows: int,
    *,
    container: str = "array_record",
    part_bytes: int = PART,
    shard: tuple[int, int] = (0, 1),
) -> Unfinished:
    """Begins a store, or resumes one that was begun for the same.

    Args:
        path: its folder.
        identity: what it is made from, JSON data; it is compared at opening.
        layout: the fields of a row.
        rows: how many there will be, over all processes.
        container: ``"array_record"``, ``"npy"`` or ``"zarr"``.
        part_bytes: about how large a part is.
        shard: which process this is and of how many; each writes its own run of rows.

    Raises:
        ValueError: for an unknown container, no rows, and for a folder that holds a store, begun or
            whole, of something else.
        OSError: if the folder cannot be written.
    """
    path = Path(path)
    if container not in CONTAINERS:
        raise ValueError(unknown("container", container, CONTAINERS))
    if rows < 1:
        raise ValueError(f"a store needs at least one row, got {rows}")
    process, processes = shard
    part_rows = max(1, part_bytes // layout.width)
    plan = {
        "format": manifest.FORMAT,
        "identity": json.loads(json.dumps(identity)),
        "layout": layout.as_json(),
        "rows": rows,
        "container": container,
        "part_rows": part_rows,
        "processes": processes,
    }
    if (path / manifest.MANIFEST).exists():
        raise ValueError(f"{path} is whole already: open it, or take another folder")
    if (path / manifest.BEGUN).exists():
        there = manifest.read(path, manifest.BEGUN)
        manifest.refuse_other(path, there, plan)
    else:
        try:
            path.mkdir(parents=True, exist_ok=True)
            manifest.write(path, plan, manifest.BEGUN)
        except OSError as fault:
            raise OSError(f"the store {path} cannot be written: {fault}") from fault
    share = -(-rows // processes)
    first, last = min(process * share, rows), min((process + 1) * share, rows)
    return Unfinished(path, layout, container, first, last, part_rows, process, identity)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
