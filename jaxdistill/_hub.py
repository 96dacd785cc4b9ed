"""Folders of what others publish: here, or fetched from the Hugging Face hub by name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def folder_of(path: str | os.PathLike, files: Sequence[str]) -> Path:
    """A path as it is, or the folder that a name on the hub was fetched into.

    Args:
        path: a path, or ``owner/name``, which is taken for a name where nothing lies under it.
        files: which of its files, with ``*`` for anything.

    Raises:
        ImportError: for such a name, without the extra ``hf``.
        FileNotFoundError: where the hub does not give it, saying why.
    """
    folder = Path(path)
    if folder.exists() or not _NAME.fullmatch(str(path)):
        return folder
    try:
        from huggingface_hub import snapshot_download
    except ImportError as fault:
        raise ImportError(
            f"{str(path)!r} is no folder here; as a name on the hub it needs "
            'pip install "jaxdistill[hf]"'
        ) from fault
    try:
        return Path(snapshot_download(str(path), allow_patterns=list(files)))
    except Exception as fault:  # no network, no such name, no right to read: of many libraries
        raise FileNotFoundError(
            f"{str(path)!r} is no folder here, and the hub did not give it "
            f"({type(fault).__name__}: {fault}). Without a network give the folder of a copy"
        ) from fault
