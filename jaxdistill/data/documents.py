"""Texts with names, from files and from what every installation has."""

from __future__ import annotations

import gzip
import json
import sysconfig
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data.split import hashes

# What is no module of its own, or not on every machine.
_LEFT_OUT = {"site-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}


class Document(NamedTuple):
    """A text with a name, by which it is split; ``prompt`` is given and never learnt."""

    name: str
    text: str
    prompt: str = ""


def standard_library(modules: int | None = None) -> list[Document]:
    """The source of the running Python's own standard library, a document a module.

    Tests are left out. What a module holds depends on the version of Python.

    Args:
        modules: only so many, the first by name; all by default.

    Example:
        >>> [document.name for document in standard_library(2)]
        ['__future__.py', '__hello__.py']
    """
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if not _LEFT_OUT.intersection(path.relative_to(root).parts)
    )
    found = [Document(p, (root / p).read_text("utf-8", errors="replace")) for p in paths[:modules]]
    if not found:
        raise FileNotFoundError(f"there is no source of the standard library in {root}")
    return found


def text_files(dir: Path | str, pattern: str = "**/*.txt") -> list[Document]:
    """The files of a folder, a document each.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: for a file that is not in UTF-8, with the line.
    """
    root = Path(dir)
    paths = sorted(path for path in root.glob(pattern) if path.is_file())
    if not paths:
        raise FileNotFoundError(f"there is no file {pattern!r} in {root}")
    return [Document(p.relative_to(root).as_posix(), text_of(p)) for p in paths]


def json_lines(path: Path | str, text: str = "text", prompt: str | None = None) -> list[Document]:
    """A file of JSON objects, one a line.

    Args:
        path: the file.
        text: the key of the text (of the completion, where there is a prompt).
        prompt: the key of the prompt.

    Raises:
        ValueError: for a line that is no object with these keys, with its number.
    """
    return _rows(json_rows(Path(path)), Path(path), text, prompt)


def parquet(path: Path | str, text: str = "text", prompt: str | None = None) -> list[Document]:
    """A Parquet file, a document a row; see :func:`json_lines`.

    Raises:
        ImportError: without the extra ``text``.
        ValueError: for what is no Parquet file, or a row without such a text.
    """
    try:
        import pyarrow.parquet as reader
        from pyarrow import ArrowException
    except ImportError as fault:
        raise ImportError("Parquet files need: pip install 'jaxdistill[text]'") from fault
    columns = [text] if prompt is None else [text, prompt]
    try:
        known = reader.read_schema(path).names
        for column in columns:
            if column not in known:
                raise ValueError(unknown(f"column of {path}", column, known))
        found = reader.read_table(path, columns=columns).to_pylist()
    except FileNotFoundError:
        raise
    except (OSError, ArrowException) as fault:
        raise ValueError(f"{path} cannot be read as Parquet: {fault}") from fault
    return _rows(enumerate(found, 1), Path(path), text, prompt)


def text_of(path: Path) -> str:
    """The text of a file, in UTF-8.

    Raises:
        ValueError: naming file and line, where it is written otherwise.
    """
    return _decoded(path.read_bytes(), path, 1).replace("\r\n", "\n").replace("\r", "\n")


def json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The values of a file of JSON, one a line, each with its line, counted from 1.

    Blank lines are left out. A file that ends in ``.gz`` is compressed.

    Raises:
        ValueError: naming file and line.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, json_of(_decoded(line, path, number), f"line {number} of {path}")
    except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
        raise ValueError(f"{path} is damaged behind line {number}: {fault}") from fault


def json_of(text: str, where: str) -> Any:
    """What JSON says.

    Raises:
        ValueError: naming where it is.
    """
    try:
        return json.loads(text)
    except ValueError as fault:
        raise ValueError(f"{where} is no JSON: {fault}") from fault
    except RecursionError as fault:
        raise ValueError(f"{where} is JSON of too many levels") from fault


def refuse_halves(text: str, where: str) -> None:
    """Refuses halves of characters (lone surrogates), which JSON can say and no file can hold.

    Raises:
        ValueError: naming where the text is.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as fault:
        raise ValueError(
            f"{where} has half a character (\\u{ord(text[fault.start]):04x}) at {fault.start}"
        ) from fault


def _decoded(text: bytes, path: Path, first: int) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as fault:
        line = first + text.count(b"\n", 0, fault.start)
        raise ValueError(
            f"line {line} of {path} is not UTF-8 (byte {text[fault.start]:#04x}): save it as UTF-8"
        ) from fault


def _rows(
    rows: Iterable[tuple[int, Any]], path: Path, text: str, prompt: str | None
) -> list[Document]:
    found = []
    for number, row in rows:
        for key in (text, prompt):
            if key is None:
                continue
            if not (isinstance(row, dict) and isinstance(row.get(key), str)):
                raise ValueError(f"record {number} of {path} has no text under {key!r}")
            refuse_halves(row[key], f"record {number} of {path}")
        name = f"{path.name}/{number - 1:06d}"
        found.append(Document(name, row[text], row[prompt] if prompt else ""))
    return found


def four_domains(size: int) -> dict[str, list[Document]]:
    """Four kinds of text that every installation has, about ``size`` characters of each.

    ``code`` is source of the standard library, ``english`` the reference of the language that it
    ships (``pydoc_data``), ``tables`` its character tables (``encodings``), ``numbers`` the pixels
    of scikit-learn's handwritten digits, a line an image.

    Raises:
        ValueError: for a size below 1.
    """
    if size < 1:
        raise ValueError(f"a domain has 1 character or more, not {size}")
    from pydoc_data.topics import topics

    from sklearn.datasets import load_digits

    modules = standard_library()
    tables = [d for d in modules if d.name.startswith("encodings/") and len(d.text) > 8000]
    code = [d for d in modules if "/" not in d.name]
    english = [Document(f"topics/{name}", topics[name]) for name in sorted(topics)]
    pixels: Any = load_digits()
    lines = [",".join(str(int(v)) for v in image) for image in pixels.data]
    numbers = [
        Document(f"digits/{i:04d}", "\n".join(lines[i : i + 10]) + "\n")
        for i in range(0, len(lines), 10)
    ]
    parts = {"code": code, "english": english, "tables": tables, "numbers": numbers}
    return {name: _about(size, documents) for name, documents in parts.items()}


def _about(size: int, documents: Sequence[Document]) -> list[Document]:
    """The first documents in the order of their hashes that together have ``size`` characters."""
    order = np.argsort(hashes([document.name for document in documents], "domain"), kind="stable")
    found: list[Document] = []
    for place in order.tolist():
        if sum(len(document.text) for document in found) >= size:
            break
        found.append(documents[place])
    return found
