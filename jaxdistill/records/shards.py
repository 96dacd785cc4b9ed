"""Records on disk: files of JSON lines or Parquet, beside what was dropped and a manifest.

The folder gets its name when all of it is there::

    records-00000.jsonl ...   the records, in the order of their ids
    dropped.jsonl             every record and request that a step dropped, with its verdict
    manifest.json             what all of it was made from, and the hash of every file
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxdistill._errors import unknown
from jaxdistill._files import Damaged, give_name, inside, read_sealed, write_sealed
from jaxdistill.data.documents import json_rows
from jaxdistill.records.canonical import line, read
from jaxdistill.records.nouns import Record, Verdict
from jaxdistill.records.requests import SCHEMA, Request

Container = Literal["jsonl", "parquet"]
CONTAINERS = ("jsonl", "parquet")
MANIFEST, DROPPED = "manifest.json", "dropped.jsonl"


class Dropped(NamedTuple):
    """What was dropped, and why.

    Attributes:
        item: the record, or the request that nobody was asked.
        verdict: of the step that dropped it.
    """

    item: Request | Record
    verdict: Verdict


class Written(NamedTuple):
    """A folder of records.

    Attributes:
        folder: where they are.
        manifest: what it says of itself.
    """

    folder: Path
    manifest: dict[str, Any]

    def __len__(self) -> int:
        return self.manifest["records"]

    def records(self) -> Iterator[Record]:
        """The records, in the order of their ids."""
        for part in self.manifest["shards"]:
            file = inside(self.folder, part["file"], self.folder / MANIFEST)
            for place, row in _rows(file):
                yield read(Record, row, place)

    def dropped(self) -> Iterator[Dropped]:
        """What was dropped, by step and id."""
        file = self.folder / DROPPED
        for number, row in json_rows(file):
            where = f"line {number} of {file}"
            kind = Request if row["kind"] == "request" else Record
            yield Dropped(read(kind, row["item"], where), read(Verdict, row["verdict"], where))

    def verify(self) -> None:
        """Reads every file, and compares it with its hash.

        Raises:
            Damaged: naming the file that is missing or not what was written.
        """
        for part in (*self.manifest["shards"], self.manifest["ledger"]):
            file = inside(self.folder, part["file"], self.folder / MANIFEST)
            if not file.is_file():
                raise Damaged(f"{self.folder} is damaged: {file.name} is missing")
            if sha256(file) != part["sha256"]:
                raise Damaged(f"{self.folder} is damaged: {file.name} is not what {MANIFEST} says")


def open_written(folder: str | os.PathLike) -> Written:
    """A folder that :func:`write_folder` wrote.

    Raises:
        ValueError: if it is none, is damaged, or has another schema.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} is no folder of records: it has no {MANIFEST}")
    manifest = read_sealed(folder / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise ValueError(
            f"{folder} has schema {manifest.get('schema')!r}, this library reads {SCHEMA}"
        )
    return Written(folder, manifest)


def write_folder(
    folder: str | os.PathLike,
    records: Sequence[Record],
    dropped: Iterable[tuple[Any, Verdict]],
    manifest: Mapping[str, Any],
    *,
    container: Container = "jsonl",
    size: int = 10_000,
) -> Written:
    """Writes records, what was dropped, and a manifest, under the folder's name at the end.

    Args:
        folder: which must not be there.
        records: in order.
        dropped: with verdicts.
        manifest: what else it says.
        container: ``"jsonl"`` or ``"parquet"``.
        size: records in a file.

    Raises:
        ImportError: for Parquet without the extra ``records``.
    """
    folder = Path(folder)
    if container not in CONTAINERS:
        raise ValueError(unknown("container", container, CONTAINERS))
    begun = folder.with_name(folder.name + ".part")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    shards = []
    for number, start in enumerate(range(0, len(records), size)):
        part = records[start : start + size]
        file = begun / f"records-{number:05d}.{container}"
        (_write_lines if container == "jsonl" else _write_parquet)(file, part)
        shards.append({"file": file.name, "records": len(part), "sha256": sha256(file)})
    ledger = begun / DROPPED
    count = _write_lines(ledger, (_dropped_row(*each) for each in dropped))
    whole = {
        **manifest,
        "schema": SCHEMA,
        "records": len(records),
        "shards": shards,
        "ledger": {"file": DROPPED, "dropped": count, "sha256": sha256(ledger)},
    }
    write_sealed(begun / MANIFEST, whole)
    give_name(begun, folder)
    return Written(folder, whole)


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dropped_row(item: Any, verdict: Verdict) -> dict[str, Any]:
    kind = "record" if isinstance(item, Record) else "request"
    return {"kind": kind, "id": item.id, "verdict": verdict, "item": item}


def _write_lines(file: Path, rows: Iterable[Any]) -> int:
    count = 0
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(line(row) + "\n")
            count += 1
    return count


# --- Parquet --------------------------------------------------------------------------------------

# Columns that other programs read as they are; everything else of a record is JSON in `more`.
_TEXTS = ("id", "source", "task", "split", "answer", "rationale")


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as fault:
        raise ImportError("Parquet files need: pip install 'jaxdistill[records]'") from fault
    return pyarrow, pyarrow.parquet


def _write_parquet(file: Path, records: Sequence[Record]) -> None:
    arrow, parquet = _parquet()
    message = arrow.struct(
        [("role", arrow.string()), ("content", arrow.string()), ("learn", arrow.bool_())]
    )
    schema = arrow.schema(
        [(name, arrow.string()) for name in _TEXTS]
        + [
            ("weight", arrow.float64()),
            ("messages", arrow.list_(message)),
            ("more", arrow.string()),
        ]
    )
    rows = [json.loads(line(each)) for each in records]
    for row in rows:
        own = {name: row.pop(name) for name in schema.names if name != "more"}
        row["more"] = line(dict(row))
        row.update(own)
    table = arrow.Table.from_pylist([{n: row[n] for n in schema.names} for row in rows], schema)
    parquet.write_table(table, file, compression="zstd")


def _rows(file: Path) -> Iterator[tuple[str, Any]]:
    if file.suffix != ".parquet":
        for number, row in json_rows(file):
            yield f"line {number} of {file}", row
        return
    _, parquet = _parquet()
    number = 0
    with parquet.ParquetFile(file) as opened:
        for batch in opened.iter_batches(1024):
            for row in batch.to_pylist():
                more = json.loads(row.pop("more"))
                yield f"row {number} of {file}", {**row, **more}
                number += 1
