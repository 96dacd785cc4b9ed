"""Texts: tokenizers, documents from files, and the windows of tokens that models read."""

from __future__ import annotations

import dataclasses
import functools
import json
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data.content import digest
from jaxdistill.data.records import (
    Reader,
    Records,
    Source,
    by_reading,
    concatenate,
    subset,
)
from jaxdistill.data.split import PARTS, Splits, hashes, part_numbers
from jaxdistill.data.tokenizers import Tokenizer, byte_tokenizer, file_tokenizer

__all__ = [
    "Document",
    "Tokenizer",
    "byte_tokenizer",
    "corpus",
    "domains",
    "file_tokenizer",
    "four_domains",
    "json_lines",
    "parquet",
    "standard_library",
    "text_files",
    "windows",
]

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
    """
    root = Path(dir)
    paths = sorted(path for path in root.glob(pattern) if path.is_file())
    if not paths:
        raise FileNotFoundError(f"there is no file {pattern!r} in {root}")
    return [
        Document(p.relative_to(root).as_posix(), p.read_text("utf-8", errors="replace"))
        for p in paths
    ]


def json_lines(path: Path | str, text: str = "text", prompt: str | None = None) -> list[Document]:
    """A file of JSON objects, one a line.

    Args:
        path: the file.
        text: the key of the text (of the completion, where there is a prompt).
        prompt: the key of the prompt.

    Raises:
        ValueError: for a line that is no object with these keys, with its number.
    """
    return _rows(_json_rows(Path(path)), Path(path).name, text, prompt)


def parquet(path: Path | str, text: str = "text", prompt: str | None = None) -> list[Document]:
    """A Parquet file, a document a row; see :func:`json_lines`.

    Raises:
        ImportError: without the extra ``text``.
    """
    try:
        import pyarrow.parquet as reader
    except ImportError as fault:
        raise ImportError("Parquet files need: pip install 'jaxdistill[text]'") from fault
    columns = [text] if prompt is None else [text, prompt]
    known = reader.read_schema(path).names
    for column in columns:
        if column not in known:
            raise ValueError(unknown(f"column of {path}", column, known))
    return _rows(
        enumerate(reader.read_table(path, columns=columns).to_pylist()),
        Path(path).name, text, prompt,
    )  # fmt: skip


def _json_rows(path: Path) -> Iterable[tuple[int, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as fault:
                    raise ValueError(f"line {number + 1} of {path} is no JSON: {fault}") from fault


def _rows(
    rows: Iterable[tuple[int, Any]], name: str, text: str, prompt: str | None
) -> list[Document]:
    found = []
    for number, row in rows:
        for key in (text, prompt):
            if key is not None and not (isinstance(row, dict) and isinstance(row.get(key), str)):
                raise ValueError(f"record {number + 1} of {name} has no text under {key!r}")
        found.append(Document(f"{name}/{number:06d}", row[text], row[prompt] if prompt else ""))
    return found


def windows(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    length: int,
    *,
    pack: bool = False,
    name: str = "text",
) -> Source:
    """Documents cut into windows of one length.

    Every text begins and ends with the end token. A window of a longer text continues the one
    before. Without packing the last window of each text is filled up; with it, texts follow each
    other, and ``segments`` and ``positions`` keep them apart in a decoder. A prompt stays with its
    completion: both are one window, and those that do not fit are left out.

    Args:
        documents: what to cut.
        tokenizer: of the texts.
        length: tokens in a window, T.
        pack: whether windows hold several texts.
        name: of the source.

    Returns:
        A source of ``tokens`` int32 ``[T]``, ``label`` (the token behind each; -1 where there is
        none), ``counted`` bool (whether its prediction counts: not in prompts, nor behind the end);
        packed, ``segments`` and ``positions``; with prompts, ``prompt``, how many tokens they have.
        ``info["left_out"]`` counts what did not fit.

    Raises:
        ValueError: for a length below 1, packed prompts, and where nothing is left.

    Example:
        >>> source = windows([Document("a", "abc")], byte_tokenizer(), 3)
        >>> source.gather(np.arange(2))["tokens"].tolist()
        [[256, 97, 98], [99, 256, 256]]
        >>> source.gather(np.arange(2))["label"].tolist()
        [[97, 98, 99], [256, -1, -1]]
    """
    if length < 1:
        raise ValueError(f"a window has 1 token or more, not {length}")
    prompted = any(document.prompt for document in documents)
    if prompted and pack:
        raise ValueError("prompts and their completions are not packed: set pack=False")
    end = np.array([tokenizer.end], np.int32)
    start = end if tokenizer.start is None else np.array([tokenizer.start], np.int32)
    texts, prompts, kept = [], [], []
    for document in documents:
        given = np.concatenate([start, tokenizer.encode(document.prompt)])
        whole = np.concatenate([given, tokenizer.encode(document.text), end])
        if prompted and len(given) > length:
            continue
        texts.append(whole[: length + 1] if prompted else whole)
        prompts.append(len(given))
        kept.append(document.name)
    if not texts:
        raise ValueError(f"none of {len(documents)} texts of {name!r} fits {length} tokens")
    info = {"vocabulary": tokenizer.vocabulary, "end": tokenizer.end, "length": length}
    info |= {"tokenizer": tokenizer.fingerprint} if tokenizer.fingerprint else {}
    info |= {"left_out": len(documents) - len(texts)} if prompted else {}
    if pack:
        return _packed(texts, length, name, info)
    # Where each window begins in all texts put together, and how many tokens are left there.
    sizes = np.array([len(text) for text in texts])
    counts = np.maximum(-(-(sizes - 1) // length), 1)
    which = np.repeat(np.arange(len(texts)), counts)
    number = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    begins = (np.cumsum(sizes) - sizes)[which] + number * length
    left = sizes[which] - number * length
    flat = np.concatenate(texts)
    given = np.array(prompts, np.int32)[which]

    def read(indices: np.ndarray) -> Records:
        place = np.arange(length + 1)[None]
        inside = place < left[indices][:, None]
        at = np.minimum(begins[indices][:, None] + place, len(flat) - 1)
        tokens = np.where(inside, flat[at], tokenizer.end).astype(np.int32)
        counted = inside[:, 1:]
        found = {"tokens": tokens[:, :-1], "label": np.where(counted, tokens[:, 1:], -1)}
        if prompted:
            counted = counted & (place[:, 1:] >= given[indices][:, None])
            found["prompt"] = given[indices]
        return {**found, "counted": counted}

    ids = [f"{kept[w]}#{n}" for w, n in zip(which.tolist(), number.tolist(), strict=True)]
    identity = functools.partial(digest, flat, sizes, given, f"{length} {tokenizer.end}")
    return Source(name, ids, Reader(read, by_reading(read, len(ids)), identity), info)


def _packed(texts: Sequence[np.ndarray], length: int, name: str, info: dict[str, Any]) -> Source:
    flat = np.concatenate(texts)
    sizes = [len(text) for text in texts]
    segment = np.repeat(np.arange(1, len(texts) + 1, dtype=np.int32), sizes)
    place = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
    count = (len(flat) - 1) // length
    if not count:
        raise ValueError(f"the texts of {name!r} do not fill one window of {length} tokens")

    def read(indices: np.ndarray) -> Records:
        at = indices[:, None] * length + np.arange(length)[None]
        same = segment[at] == segment[at + 1]
        segments = segment[at] - segment[at[:, :1]] + 1
        return {
            "tokens": flat[at],
            "label": np.where(same, flat[at + 1], -1),
            "counted": same,
            "segments": segments,
            # A text that began in the window before begins anew here.
            "positions": np.where(
                segments == 1, np.arange(length, dtype=np.int32)[None], place[at]
            ),
        }

    ids = [f"{name}/packed/{i:06d}" for i in range(count)]
    identity = functools.partial(digest, flat, segment, str(length))
    return Source(name, ids, Reader(read, by_reading(read, len(ids)), identity), info)


def corpus(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    length: int,
    *,
    pack: bool = False,
    name: str = "text",
    validation: float = 0.1,
    test: float = 0.1,
) -> Splits:
    """Documents split by the hash of their names, then cut into windows.

    No text is in two parts, whatever its length. What is held out is in the order of its hashes, so
    that its first batches are a sample of all.

    Raises:
        ValueError: for shares that leave nothing, and for a part without a document.
    """
    numbers = part_numbers([document.name for document in documents], validation, test)
    found = Splits()
    for number, (part, share) in enumerate(zip(PARTS, (1.0, validation, test), strict=True)):
        if share:
            chosen = [d for d, n in zip(documents, numbers, strict=True) if n == number]
            if not chosen:
                raise ValueError(
                    f"the {part} part of {name!r} ({len(documents)} documents) is empty: raise its "
                    "share"
                )
            found[part] = windows(chosen, tokenizer, length, pack=pack, name=f"{name}[{part}]")
            if number:
                found[part] = _spread(found[part])
    return found


def domains(
    parts: Mapping[str, Sequence[Document]],
    tokenizer: Tokenizer,
    length: int,
    *,
    validation: float = 0.1,
    test: float = 0.1,
) -> Splits:
    """Several corpora as one; ``group`` of a record says which, ``info["groups"]`` names them."""
    apart = {
        name: corpus(texts, tokenizer, length, name=name, validation=validation, test=test)
        for name, texts in parts.items()
    }
    found = Splits()
    for part in apart[next(iter(apart))]:
        named = [dataclasses.replace(splits[part], name=name) for name, splits in apart.items()]
        whole = concatenate(named, f"domains[{part}]")
        found[part] = whole if part == "train" else _spread(whole)
    return found


def _spread(source: Source) -> Source:
    order = np.argsort(hashes(source.ids, "spread"), kind="stable")
    return subset(source, order, source.name)


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
