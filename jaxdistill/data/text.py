"""Texts as windows of tokens, split by document; :mod:`jaxdistill.data.documents` reads them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxdistill.data.content import digest, text_hashes
from jaxdistill.data.documents import (
    Document,
    four_domains,
    json_lines,
    parquet,
    standard_library,
    text_files,
)
from jaxdistill.data.records import (
    Reader,
    Records,
    Source,
    by_reading,
    concatenate,
    subset,
)
from jaxdistill.data.split import PARTS, Splits, hashes, part_numbers
from jaxdistill.data.tokenizers import (
    Tokenizer,
    bpe_tokenizer,
    byte_tokenizer,
    file_tokenizer,
    refuse_unknown_tokens,
)
from jaxdistill.progress import shown
from jaxdistill.settings import Fraction, checked

__all__ = [
    "Document",
    "Tokenizer",
    "bpe_tokenizer",
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
    for document in shown(documents, f"tokens of {name}", "texts"):
        given = np.concatenate([start, tokenizer.encode(document.prompt)])
        whole = np.concatenate([given, tokenizer.encode(document.text), end])
        if prompted and len(given) > length:
            continue
        texts.append(whole[: length + 1] if prompted else whole)
        prompts.append(len(given))
        kept.append(document.name)
    if not texts:
        raise ValueError(f"none of {len(documents)} texts of {name!r} fits {length} tokens")
    info: dict[str, Any] = {"vocabulary": tokenizer.vocabulary, "end": tokenizer.end}
    info |= {"length": length}
    info |= {"tokenizer": tokenizer.fingerprint} if tokenizer.fingerprint else {}
    info["encoding"] = tokenizer
    info |= {"left_out": len(documents) - len(texts)} if prompted else {}
    refuse_unknown_tokens(tokenizer, texts, name)
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


@checked
def corpus(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    length: int,
    *,
    pack: bool = False,
    name: str = "text",
    validation: Fraction = 0.1,
    test: Fraction = 0.1,
    by: Literal["id", "content"] = "id",
) -> Splits:
    """Documents split by the hash of their names, then cut into windows.

    No document is in two parts, whatever its length; ``by="content"`` hashes prompts and texts in
    place of names, so that documents which say the same are in one part. What is held out is in the
    order of its hashes, so that its first batches are a sample of all.

    Raises:
        ValueError: for shares that leave nothing, and for a part without a document.
    """
    hashed = [document.name for document in documents]
    if by == "content":
        told = text_hashes(f"{document.prompt}\0{document.text}" for document in documents)
        hashed = [f"{number:016x}" for number in told.tolist()]
    numbers = part_numbers(hashed, validation, test)
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


@checked
def domains(
    parts: Mapping[str, Sequence[Document]],
    tokenizer: Tokenizer,
    length: int,
    *,
    validation: Fraction = 0.1,
    test: Fraction = 0.1,
    by: Literal["id", "content"] = "id",
) -> Splits:
    """Several corpora as one; ``group`` of a record says which, ``info["groups"]`` names them."""
    apart = {
        name: corpus(texts, tokenizer, length, name=name, validation=validation, test=test, by=by)
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
