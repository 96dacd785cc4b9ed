"""Files that get their final name only when they are complete and on the disk."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdistill.progress import shown

CHECKSUMS = "checksums.json"
_BLOCK = 512  # words of 8 bytes


class Damaged(ValueError):
    """A file is missing, or not what was written."""


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Writes strict JSON under its final name at once, or not at all."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text under its final name at once, or not at all."""
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    give_name(temporary, path)


def give_name(temporary: Path, path: Path) -> None:
    """Gives a file or folder its final name, once all of it has reached the disk."""
    reach_disk(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def reach_disk(path: Path) -> None:
    """Waits until a file, or a folder with all that is in it, is on the disk."""
    if path.is_dir():
        for child in path.iterdir():
            reach_disk(child)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_sealed(path: str | os.PathLike, data: Mapping[str, Any]) -> None:
    """Writes a JSON object whose first entry, ``checksum``, is of the text behind it."""
    rest = ("," if data else "") + json.dumps(dict(data), indent=2, allow_nan=False)[1:] + "\n"
    write_text(path, _seal(rest) + rest)


def read_sealed(path: str | os.PathLike) -> dict[str, Any]:
    """What :func:`write_sealed` wrote, without the checksum.

    Raises:
        Damaged: naming the file, if it is missing or not what was written.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError as fault:
        raise Damaged(f"{path} is missing") from fault
    except UnicodeDecodeError as fault:
        raise Damaged(f"{path} is damaged: {fault}") from fault
    rest = text[len(_seal("")) :]
    if text != _seal(rest) + rest:
        raise Damaged(f"{path} is damaged: it does not fit its checksum")
    return json.loads("{" + rest.removeprefix(","))


def _seal(rest: str) -> str:
    found = hashlib.blake2b(rest.encode(), digest_size=16).hexdigest()
    return f'{{\n  "checksum": "{found}"'


def seal_folder(folder: Path, leave_out: Sequence[str] = ()) -> None:
    """Writes down, in ``checksums.json``, what every file of a folder holds but for some."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    named = {str(file.relative_to(folder)): file for file in files}
    left = {*leave_out, CHECKSUMS}
    found = {
        name: checksum(file)
        for name, file in shown(named.items(), f"seal {folder.name}", "files")
        if name not in left
    }
    write_sealed(folder / CHECKSUMS, {"files": found})


def verify_folder(
    folder: Path,
    below: float = math.inf,
    always: str = "",
    *,
    only: Sequence[str] = (),
    hint: str = "",
) -> None:
    """Compares the files of a folder with what :func:`seal_folder` wrote down.

    Args:
        folder: which one.
        below: files of so many bytes or more are not read, only looked for.
        always: the name of a file that is read whatever its size.
        only: the names of those that are looked at; all if not given.
        hint: what to say besides of a file that is another one.

    Raises:
        Damaged: naming the folder and the file that is missing or not what was written.
    """
    try:
        files = read_sealed(folder / CHECKSUMS)["files"]
    except Damaged as fault:
        raise Damaged(f"{folder} is damaged: {fault}") from fault
    for name in shown(only or files, f"verify {folder.name}", "files"):
        if not inside(folder, name, folder / CHECKSUMS).is_file():
            raise Damaged(f"{folder} is damaged: {name} is missing")
        if name != always and (folder / name).stat().st_size >= below:
            continue
        if checksum(folder / name) != files.get(name):
            raise Damaged(f"{folder} is damaged: {name} is not what {CHECKSUMS} says{hint}")


def inside(folder: Path, name: Any, source: Path) -> Path:
    """The file of a folder that an index or a manifest names.

    Its parts are looked at, not what it resolves to: files from the hub are links.

    Raises:
        ValueError: naming the source, for a name that leads out of the folder.

    Example:
        >>> inside(Path("a"), "../b", Path("a/index.json"))
        Traceback (most recent call last):
        ValueError: a/index.json names '../b', which is no file in its folder
    """
    parts = Path(name).parts if isinstance(name, str) else ()
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise ValueError(f"{source} names {name!r}, which is no file in its folder")
    return folder / name


def checksum(path: Path) -> str:
    """A hash of every byte of a file, or of all files of a folder with their names.

    It goes over a file at the speed of memory: sums of its words by rows and by columns, which see
    every flipped bit and every piece in the wrong place, and a hash of those. Against accidents,
    not against malice.
    """
    state = hashlib.blake2b(digest_size=16)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        state.update(str(file.relative_to(path)).encode())
        _add(state, file)
    return state.hexdigest()


def _add(state: Any, file: Path) -> None:
    size = file.stat().st_size
    state.update(str(size).encode())
    words = size // 8 // _BLOCK * _BLOCK
    if words:
        content = np.memmap(file, "<u8", "r", shape=(words // _BLOCK, _BLOCK))
        for axis in (0, 1):
            state.update(content.sum(axis, dtype=np.uint64).tobytes())
    with file.open("rb") as stream:
        stream.seek(8 * words)
        state.update(stream.read())
