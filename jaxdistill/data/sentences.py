"""Texts that are classified or scored as a whole, alone or in pairs, as records.

Published sets are in :mod:`jaxdistill.data.published`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.data.content import digest, row_hashes, text_hashes
from jaxdistill.data.documents import standard_library
from jaxdistill.data.records import Reader, Records, Source
from jaxdistill.data.tokenizers import Tokenizer, refuse_unknown_tokens
from jaxdistill.settings import Count, checked

PACKAGES = (
    "asyncio", "email", "http", "importlib", "logging", "multiprocessing", "unittest", "xml",
)  # fmt: skip
"""Packages of the standard library that every installation has and that hold much text."""


class Sentences(NamedTuple):
    """Texts with what is to be said of them.

    Attributes:
        name: of the set.
        texts: ``[n]``.
        labels: classes, integers ``[n]``, or scores, floating ``[n]``.
        others: the second text of each pair, ``[n]``; None where there are no pairs.
        ids: of the records; by number if not given.
        class_names: what the classes mean, where they have names.
    """

    name: str
    texts: Sequence[str]
    labels: np.ndarray
    others: Sequence[str] | None = None
    ids: Sequence[str] | None = None
    class_names: tuple[str, ...] = ()


def encoded(given: Sentences, tokenizer: Tokenizer, length: int) -> Source:
    """Texts as tokens of one length: the start token, the text, the end token, padding; of a pair
    the second text and the end token once more.

    A text that is too long is cut. Of a pair the first text keeps half of the places, and what the
    other one does not need.

    Args:
        given: the texts and their labels.
        tokenizer: of the texts; its end token parts and ends them, and begins them where it has no
            start token.
        length: tokens of a record, T.

    Returns:
        A source of ``tokens`` int32 ``[T]``; ``mask`` bool ``[T]``, where there is text; of pairs
        ``types`` int32 ``[T]``, 1 for the second text; ``label``, int32, or of
        scores float32 ``[1]``.

    Raises:
        ValueError: for a length that leaves no place for text, texts and labels of different
            number, and a pair one of whose texts is empty.

    Example:
        >>> from jaxdistill.data.text import byte_tokenizer
        >>> pair = Sentences("a", ["ab"], np.array([1]), others=["c"])
        >>> found = encoded(pair, byte_tokenizer(), 7).gather(np.arange(1))
        >>> found["tokens"].tolist(), found["types"].tolist()
        ([[256, 97, 98, 256, 99, 256, 256]], [[0, 0, 0, 0, 1, 1, 0]])
        >>> found["mask"].tolist()
        [[True, True, True, True, True, True, False]]
    """
    marks = 2 if given.others is None else 3
    room = length - marks
    if room < marks - 1:
        raise ValueError(
            f"texts of {given.name!r} need {2 * marks - 1} tokens or more, not {length}"
        )
    _refuse_unlike(given)
    count = len(given.texts)
    tokens = np.full((count, length), tokenizer.end, np.int32)
    tokens[:, 0] = tokenizer.end if tokenizer.start is None else tokenizer.start
    ends, starts = np.zeros(count, np.int64), np.full(count, length, np.int64)
    for row, text in enumerate(given.texts):
        first = tokenizer.encode(text)
        if given.others is None:
            first, second = first[:room], None
        else:
            second = tokenizer.encode(given.others[row])
            first = first[: max(room - room // 2, room - len(second))]
            second = second[: room - len(first)]
        tokens[row, 1 : 1 + len(first)] = first
        ends[row] = len(first) + 2
        if second is not None:
            starts[row] = ends[row]
            tokens[row, ends[row] : ends[row] + len(second)] = second
            ends[row] += len(second) + 1
    refuse_unknown_tokens(tokenizer, [tokens.ravel()], given.name)
    labels, classes = _labels(given)
    place = np.arange(length)[None]
    info: dict[str, Any] = {
        "vocabulary": tokenizer.vocabulary, "end": tokenizer.end, "length": length,
        "encoding": tokenizer,
    }  # fmt: skip
    if classes:
        info["classes"] = len(given.class_names) or int(labels.max()) + 1
    if given.class_names:
        info["class_names"] = given.class_names

    def read(rows: np.ndarray) -> Records:
        inside = place < ends[rows][:, None]
        found = {"tokens": tokens[rows], "mask": inside, "label": labels[rows]}
        if given.others is not None:
            found["types"] = (inside & (place >= starts[rows][:, None])).astype(np.int32)
        return found

    ids = given.ids or [f"{given.name}/{i:06d}" for i in range(count)]
    by_text = [text_hashes(given.texts)]
    if given.others is not None:
        by_text.append(text_hashes(given.others))
    return Source(
        given.name,
        ids,
        Reader(
            read,
            lambda: row_hashes(np.stack(by_text, 1)),
            lambda: digest(tokens, ends, starts, labels),
        ),
        info,
        lambda: labels,
    )


def _refuse_unlike(given: Sentences) -> None:
    """Refuses labels or second texts that are fewer or more, and pairs with an empty text."""
    for what, found in (("labels", given.labels), ("second texts", given.others)):
        if found is not None and len(found) != len(given.texts):
            raise ValueError(f"{given.name!r} has {len(given.texts)} texts and {len(found)} {what}")
    if given.others is None:
        return
    for which, texts in (("first", given.texts), ("second", given.others)):
        empty = next((row for row, text in enumerate(texts) if not text.strip()), None)
        if empty is not None:
            name = given.ids[empty] if given.ids else f"number {empty}"
            raise ValueError(f"the {which} text of pair {name} of {given.name!r} is empty")


def _labels(given: Sentences) -> tuple[np.ndarray, bool]:
    """Labels as records hold them, and whether they are classes; refused where they are neither."""
    labels = np.asarray(given.labels)
    wanted = f"labels of {given.name!r} are whole numbers (classes) or finite scores, one a text"
    if labels.ndim != 1 or labels.dtype.kind not in "iuf":
        hint = (
            ": number the classes, e.g. names, labels = np.unique(labels, return_inverse=True)"
            if labels.dtype.kind in "OSU"
            else ""
        )
        raise ValueError(f"{wanted}, not {labels.dtype} of shape {list(labels.shape)}{hint}")
    if labels.dtype.kind == "f":
        bad, most = ~np.isfinite(labels), "finite"
    else:
        count = len(given.class_names) or 2**31
        bad, most = (labels < 0) | (labels >= count), f"from 0 to {count - 1}"
    if bad.any():
        row = int(bad.argmax())
        name = given.ids[row] if given.ids else f"number {row}"
        raise ValueError(f"{wanted}: that of {name} is {labels[row]}, not {most}")
    if labels.dtype.kind == "f":
        return labels.astype(np.float32)[:, None], False
    return labels.astype(np.int32), True


@checked
def library_pairs(*, lines: Count = 3, each: Count = 500) -> Sentences:
    """Pairs of passages of Python's standard library, from one file or from two of a package.

    No passage is in two pairs. What they hold depends on the version of Python.

    Args:
        lines: of source in a passage, blank ones left out.
        each: pairs of a package at most.

    Raises:
        ValueError: for fewer than one line.

    Example:
        >>> found = library_pairs(each=5)
        >>> len(found.texts), found.class_names
        (40, ('two files', 'one file'))
    """
    passages = library_passages(lines=lines, each=None)
    assert passages.ids is not None
    by_file: dict[str, list[int]] = {}
    for row, name in enumerate(passages.ids):  # in the order of their hashes
        by_file.setdefault(name.partition("#")[0], []).append(row)
    pairs: list[tuple[int, int, int]] = []
    for number in range(len(PACKAGES)):
        files = [rows for rows in by_file.values() if passages.labels[rows[0]] == number]
        one = [(a, b, 1) for rows in files for a, b in zip(rows[::4], rows[1::4], strict=False)]
        following = zip(files, files[1:] + files[:1], strict=True)
        two = [(a, b, 0) for f, g in following for a, b in zip(f[2::4], g[3::4], strict=False)]
        pairs += sorted(one)[: each // 2] + sorted(two)[: each - each // 2]
    texts = passages.texts
    return Sentences(
        "library_pairs",
        [texts[a] for a, _, _ in pairs],
        np.array([label for _, _, label in pairs], np.int32),
        [texts[b] for _, b, _ in pairs],
        [f"{passages.ids[a]}+{passages.ids[b]}" for a, b, _ in pairs],
        ("two files", "one file"),
    )


@checked
def library_passages(*, lines: Count = 3, each: Count | None = 1500) -> Sentences:
    """Passages of Python's standard library, to be classified by the package that they are from.

    Every installation has them. What they hold depends on the version of Python. No two passages
    share a line of a file, but one module gives many of them.

    Args:
        lines: of source in a passage, blank ones left out.
        each: passages of a package at most, those that the order of their hashes begins with; all
            if not given.

    Raises:
        ValueError: for fewer than one line.

    Example:
        >>> found = library_passages(each=5)
        >>> len(found.texts), found.class_names[:2]
        (40, ('asyncio', 'email'))
    """
    from jaxdistill.data.split import hashes

    texts: dict[str, str] = {}
    for document in standard_library():
        if document.name.partition("/")[0] in PACKAGES and "/" in document.name:
            kept = [line for line in document.text.splitlines() if line.strip()]
            for start in range(0, len(kept) - lines + 1, lines):
                texts[f"{document.name}#{start:05d}"] = "\n".join(kept[start : start + lines])
    names = np.array(list(texts))
    names = names[np.argsort(hashes(names, "passages"), kind="stable")]
    package = np.array([PACKAGES.index(name.partition("/")[0]) for name in names])
    rank = np.empty(len(names), np.int64)
    for number in range(len(PACKAGES)):
        rank[package == number] = np.arange((package == number).sum())
    chosen = np.flatnonzero(rank < each) if each else np.arange(len(names))
    ids = names[chosen].tolist()
    return Sentences(
        "library_passages",
        [texts[i] for i in ids],
        package[chosen].astype(np.int32),
        ids=ids,
        class_names=PACKAGES,
    )
