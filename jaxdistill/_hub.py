"""Folders of published files: local, or fetched from the Hugging Face hub by name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

# A name, and at which branch, tag or commit.
_NAME = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?")


def is_name(path: str | os.PathLike) -> bool:
    """Whether something is a name on the hub: ``owner/name`` or ``owner/name@revision``, where
    neither it nor a folder ``owner`` is here.

    Example:
        >>> is_name("facebook/dinov2-small"), is_name("/data/dinov2"), is_name("dinov2")
        (True, False, False)
    """
    if not isinstance(path, str) or _NAME.fullmatch(path) is None:
        return False
    return not (Path(path).exists() or Path(path).parent.is_dir())


def shown(path: str | os.PathLike) -> str:
    """What published weights are called: a name on the hub as it is, a folder without what it lies
    in.

    Example:
        >>> shown("facebook/dinov2-small"), shown("/data/dinov2")
        ('facebook/dinov2-small', 'dinov2')
    """
    return str(path) if is_name(path) else Path(path).name


def folder_of(
    path: str | os.PathLike, files: Sequence[str], *, revision: str | None = None
) -> Path:
    """A path as it is, or the folder that a name on the hub was fetched into.

    Args:
        path: a path, or ``owner/name``, also ``owner/name@revision``, which is taken for a name on
            the hub where neither it nor a folder ``owner`` is here.
        files: which of its files, with ``*`` for anything.
        revision: the branch, tag or commit; the newest one if it is not given.

    Raises:
        ValueError: for a revision of a folder that is here, or two of them.
        ImportError: for such a name, without the extra ``hf``.
        FileNotFoundError: where the hub does not give it, saying why.
    """
    name = _NAME.fullmatch(str(path))
    if name is None or not is_name(path):
        if revision is not None:
            raise ValueError(f"revision={revision!r} is for names on the hub, {path} is a path")
        return Path(path)
    if revision is not None and name["revision"] not in (None, revision):
        raise ValueError(f"{path} names a revision already, and is not to be {revision!r}")
    revision = revision or name["revision"]
    try:
        from huggingface_hub import snapshot_download
    except ImportError as fault:
        raise ImportError(
            f"{str(path)!r} is no folder here; as a name on the hub it needs "
            'pip install "jaxdistill[hf]"'
        ) from fault
    try:
        fetch = partial(snapshot_download, revision=revision) if revision else snapshot_download
        return Path(fetch(name["name"], allow_patterns=list(files)))
    except Exception as fault:  # no network, no such name, no right to read: of many libraries
        raise FileNotFoundError(
            f"{str(path)!r} is no folder here, and the hub did not give it "
            f"({type(fault).__name__}: {fault}). Without a network give the folder of a copy"
        ) from fault
