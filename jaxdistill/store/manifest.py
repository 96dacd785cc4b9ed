"""What a store says of itself, and whether that is what was asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdistill._errors import differences
from jaxdistill._files import Damaged, inside, read_sealed, write_sealed

# The manifest of a store that is whole, and that of one which is being written.
MANIFEST, BEGUN = "manifest.json", "begun.json"
# The records of a store: the digest of every id, in order.
INDEX = "ids.npy"
FORMAT = 2
_NEEDED = ("container", "files", "identity", "index", "layout", "measures", "records", "rows")
DIGEST = 16  # bytes of an id's digest


def refuse_other(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Compares what a store is with what is asked for; what is not asked for is not compared.

    Raises:
        ValueError: listing every value that differs, both values.
    """
    here = json.loads(json.dumps(here))
    faults = differences({key: there.get(key, "absent") for key in here}, here)
    if faults:
        raise ValueError(
            f"{path} holds arrays of something else:\n" + "\n".join(faults) + "\nTake another "
            "folder, or write the arrays again."
        )


def read(path: Path, name: str = MANIFEST) -> dict[str, Any]:
    """The manifest in a folder.

    Raises:
        ValueError: if there is none, it is damaged, or of another format.
    """
    file = path / name
    if not file.exists():
        state = "is not finished: write it on" if (path / BEGUN).exists() else "is no store"
        raise ValueError(f"{path} {state} (it has no {name})")
    try:
        found = read_sealed(file)
    except Damaged:
        if (other := _format(file)) != FORMAT:
            raise ValueError(f"{file} has format {other!r}, this library {FORMAT}") from None
        raise
    for key in _NEEDED if name == MANIFEST else ():
        if key not in found:
            raise ValueError(f"{file} lacks {key!r}: it is no manifest of a store")
    for part in found.get("files", ()):
        inside(path, part["name"], file)
    return found


def _format(file: Path) -> Any:
    """The format that a manifest says it has; one that cannot be read has this library's."""
    try:
        return json.loads(file.read_text()).get("format", FORMAT)
    except (ValueError, AttributeError, RecursionError):
        return FORMAT


def write(path: Path, manifest: Mapping[str, Any], name: str = MANIFEST) -> None:
    """Writes a manifest under its final name at once."""
    write_sealed(path / name, manifest)


def digests(ids: Iterable[str]) -> np.ndarray:
    """``uint8 [n, 16]``, by which the records of a store are known, whatever their order."""
    joined = b"".join(hashlib.blake2b(each.encode(), digest_size=DIGEST).digest() for each in ids)
    return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST)


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
