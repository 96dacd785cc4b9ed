"""Files that bear their name only when they are whole, and on the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


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
