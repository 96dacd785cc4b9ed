"""Opening a store, checking it, and reading its rows in any order."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxdistill._errors import unknown
from jaxdistill._files import checksum
from jaxdistill.progress import shown
from jaxdistill.store import manifest
from jaxdistill.store.containers import CONTAINERS, Read
from jaxdistill.store.layout import Layout, damaged, ends_of, from_json, row_checksums


class Damaged(OSError):
    """A file of a store is missing, truncated, or not what was written."""


@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """A store that is whole; made by :func:`open_store`.

    Attributes:
        path: its folder.
        manifest: all that it says of itself.
        layout: the fields of a row.
        digests: of the ids of its records, ``uint8 [n, 16]``; row ``v * n + i`` is view ``v`` of
            record ``i``.
        readable: bool ``[rows]``, false where a file is left out because it is damaged.
    """

    path: Path
    manifest: Mapping[str, Any]
    layout: Layout
    digests: np.ndarray
    readable: np.ndarray
    _reads: dict[int, Read] = dataclasses.field(default_factory=dict)
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return self.manifest["rows"]

    @property
    def records(self) -> int:
        """How many records there are, each with all its views."""
        return self.manifest["records"]

    @property
    def views(self) -> int:
        """How many rows there are of every record."""
        return len(self) // self.records

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of some rows, ``[B, ...]``, in any order, repeats allowed.

        Raises:
            IndexError: for a row that does not exist.
            Damaged: naming the file, if a row is not what was written.
        """
        rows = np.asarray(rows)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(
                f"{self.path} holds {len(self)} rows, but rows from {rows.min()} to {rows.max()} "
                "were asked for"
            )
        files, starts = self.manifest["files"], self._starts
        number = np.searchsorted(starts, rows, side="right") - 1
        found = np.empty((len(rows), self.layout.width), np.uint8)
        for each in np.unique(number):
            chosen = number == each
            inside = rows[chosen] - starts[each]
            try:
                found[chosen] = self._open(int(each))(inside)
            except OSError as fault:
                raise Damaged(_advice(self.path / files[each]["name"], str(fault))) from fault
        if (bad := damaged(found)).any():
            row = int(rows[bad.argmax()])
            name = files[number[bad.argmax()]]["name"]
            raise Damaged(_advice(self.path / name, f"row {row} does not fit its checksum"))
        return self.layout.unpack(found)

    def positions(self, ids: Sequence[str]) -> np.ndarray:
        """Where records are, by their ids: int64 ``[n]`` of positions in ``0..records - 1``.

        Raises:
            ValueError: if one of them is not in the store; it names the first.
        """
        wanted = manifest.digests(ids)
        found = find(self.digests, wanted)
        if (found < 0).any():
            first = ids[int((found < 0).argmax())]
            raise ValueError(
                f"{self.path} holds no arrays of {(found < 0).sum()} of these {len(ids)} records, "
                f"the first being {first!r}: it was written for other records"
            )
        return found

    def verify(self) -> list[str]:
        """Reads every byte, and names every file that is not what was written."""
        faults = _missing(self.path, self.manifest)
        files = [*self.manifest["files"], {"name": manifest.INDEX, **self.manifest["index"]}]
        for file in shown(files, f"verify {self.path.name}", "files"):
            path = self.path / file["name"]
            if any(file["name"] in fault for fault in faults):
                continue
            if checksum(path) != file["checksum"]:
                faults.append(f"{file['name']}: its checksum is not that of the manifest")
        return faults

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        """The first row of every file."""
        return np.array([file["first"] for file in self.manifest["files"]])

    def _open(self, number: int) -> Read:
        with self._lock:
            if number not in self._reads:
                file = self.manifest["files"][number]
                container = CONTAINERS[self.manifest["container"]]
                self._reads[number] = container.open(
                    self.path / file["name"], file["rows"], self.layout.width
                )
            return self._reads[number]


def open_store(
    path: Path | str,
    expect: Mapping[str, Any] | None = None,
    *,
    damage: Literal["refuse", "skip"] = "refuse",
) -> Store:
    """Opens a store.

    Args:
        path: its folder.
        expect: what it must be made from: parts of the identity it was written with, JSON data.
        damage: ``"refuse"`` a store of which a file is missing or truncated, or ``"skip"`` the rows
            of such files, and of those whose checksum is wrong, for which all are read once.

    Raises:
        ValueError: if there is none, it is not finished, or of something else; every value that
            differs is listed with both.
        Damaged: naming the files that are missing, truncated, or in each other's place: of every
            file the first and the last row are read.
    """
    path = Path(path)
    if damage not in ("refuse", "skip"):
        raise ValueError(unknown("way with damage", damage, ("refuse", "skip")))
    found = manifest.read(path)
    if expect is not None:
        manifest.refuse_other(path, found["identity"], expect)
    faults = _missing(path, found)
    index = [fault for fault in faults if manifest.INDEX in fault]
    if index or (faults and damage == "refuse"):
        raise Damaged(_advice(path, "; ".join(index or faults)))
    if checksum(path / manifest.INDEX) != found["index"]["checksum"]:
        raise Damaged(_advice(path / manifest.INDEX, "it is not what was written"))
    digests = np.load(path / manifest.INDEX, allow_pickle=False)
    store = Store(path, found, from_json(found["layout"]), digests, np.ones(found["rows"], bool))
    if damage == "refuse":
        _refuse_exchanged(store)
    if damage == "skip":
        bad = [fault.split(":")[0] for fault in store.verify()]
        for file in found["files"]:
            if file["name"] in bad:
                store.readable[file["first"] : file["first"] + file["rows"]] = False
    return store


def _refuse_exchanged(store: Store) -> None:
    """Looks at the ends of every file: a file of the right size may be another's."""
    container, width = CONTAINERS[store.manifest["container"]], store.layout.width
    for file in shown(store.manifest["files"], f"open {store.path.name}", "files"):
        path = store.path / file["name"]
        try:
            rows = container.open(path, file["rows"], width)(ends_of(file["rows"]))
        except OSError as fault:
            raise Damaged(_advice(path, str(fault))) from fault
        if row_checksums(rows) != file["ends"]:
            raise Damaged(_advice(path, "its rows are not those that were written into it"))


def find(there: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of some digests is among others, -1 for one that is not: int64 ``[n]``."""
    if there.shape == wanted.shape and (there == wanted).all():
        return np.arange(len(there))
    heads, sought = (np.ascontiguousarray(x[:, :8]).view(">u8")[:, 0] for x in (there, wanted))
    order = np.argsort(heads, kind="stable")
    places = order[np.searchsorted(heads, sought, sorter=order).clip(max=len(order) - 1)]
    return np.where((there[places] == wanted).all(1), places, -1)


def _missing(path: Path, found: Mapping[str, Any]) -> list[str]:
    faults = []
    for file in [*found["files"], {"name": manifest.INDEX, **found["index"]}]:
        if not (path / file["name"]).exists():
            faults.append(f"{file['name']}: missing")
        elif (size := manifest.size(path / file["name"])) != file["bytes"]:
            faults.append(f"{file['name']}: {size} bytes, but {file['bytes']} were written")
    return faults


def _advice(path: Path, fault: str) -> str:
    return (
        f"{path} is damaged: {fault}. Write it again, or open the store with damage='skip' to use "
        "the rest."
    )
