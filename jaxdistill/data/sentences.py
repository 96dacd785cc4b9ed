"""Texts that are classified or scored as a whole, alone or in pairs: records, and where published
sets lie on a disk."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.data.content import digest, row_hashes, text_hashes
from jaxdistill.data.records import Reader, Records, Source
from jaxdistill.data.text import Tokenizer, standard_library

# Packages of the standard library that every installation has, of much text each.
PACKAGES = (
    "asyncio", "email", "http", "importlib", "logging", "multiprocessing", "unittest", "xml",
)  # fmt: skip


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
        ValueError: for a length that leaves no place for text, or texts and labels of unlike
            number.

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
    for what, found in (("labels", given.labels), ("second texts", given.others)):
        if found is not None and len(found) != len(given.texts):
            raise ValueError(f"{given.name!r} has {len(given.texts)} texts and {len(found)} {what}")
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
    scores = np.asarray(given.labels)
    classes = scores.dtype.kind in "iu"
    labels = scores.astype(np.int32) if classes else scores.astype(np.float32)[:, None]
    place = np.arange(length)[None]
    info: dict[str, Any] = {
        "vocabulary": tokenizer.vocabulary, "end": tokenizer.end, "length": length,
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


def bpe_tokenizer(texts: Sequence[str], vocabulary: int, end: str = "<|endoftext|>") -> Tokenizer:
    """A byte-pair encoding that is learnt from texts; any text can be written in it.

    Args:
        texts: what it is learnt from: those that are trained on.
        vocabulary: how many tokens there are at most, the 256 bytes and the end of a text included.
        end: how the end of a text is called.

    Raises:
        ImportError: without the extra ``text``.
        ValueError: for a vocabulary that does not hold the bytes.

    References:
        Sennrich et al. Neural machine translation of rare words with subword units. ACL 2016.
    """
    try:
        from tokenizers import Tokenizer as Learnt
        from tokenizers import decoders, models, pre_tokenizers, trainers
    except ImportError as fault:
        raise ImportError(
            "the tokenizer 'bpe' needs: pip install 'jaxdistill[text]'; 'bytes' needs nothing"
        ) from fault
    if vocabulary < 257:
        raise ValueError(f"a vocabulary holds 256 bytes and the end of a text, not {vocabulary}")
    learnt: Any = Learnt(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # type: ignore
    learnt.decoder = decoders.ByteLevel()  # type: ignore
    learnt.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[end],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    number = learnt.token_to_id(end)

    def encode(text: str) -> np.ndarray:
        return np.asarray(learnt.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(tokens: Sequence[int]) -> str:
        return learnt.decode([int(t) for t in tokens if t != number])

    return Tokenizer(encode, decode, learnt.get_vocab_size(), number)


def library_passages(lines: int = 3, each: int | None = 1500) -> Sentences:
    """Passages of Python's standard library, to be told apart by the package that they are from.

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

    if lines < 1:
        raise ValueError(f"a passage has 1 line or more, not {lines}")
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


def sst2(folder: Path | str, part: str) -> Sentences:
    """SST-2: sentences of film reviews, negative or positive.

    Args:
        folder: with GLUE's ``train.tsv`` and ``dev.tsv`` (GLUE gives no labels of its test set), or
            with ``train.jsonl`` and ``test.jsonl`` of ``text`` and ``label``, compressed or not.
        part: ``"train"`` or ``"test"``.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: for a row without a text or a label.

    References:
        Socher et al. Recursive deep models for semantic compositionality. EMNLP 2013.
        Wang et al. GLUE. ICLR 2019.
    """
    rows = _rows("sst2", folder, part, {"train": "train.tsv", "test": "dev.tsv"}, _tsv)
    texts = [_text("sst2", row, "text", "sentence") for row in rows]
    labels = np.array([int(_number("sst2", row, "label")) for row in rows], np.int32)
    return Sentences(f"sst2/{part}", texts, labels, class_names=("negative", "positive"))


def laroseda(folder: Path | str, part: str) -> Sentences:
    """LaRoSeDa: Romanian reviews of products, negative (1 or 2 stars) or positive (4 or 5); the
    title is the first sentence.

    Args:
        folder: with the published ``laroseda_train.json`` and ``laroseda_test.json``, or with
            ``train.jsonl`` and ``test.jsonl`` of ``title``, ``text`` and ``label``, compressed or
            not.
        part: ``"train"`` or ``"test"``.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: for a row without a text or a label.

    References:
        Tache et al. Clustering word embeddings with self-organizing maps. Application on LaRoSeDa.
        EACL 2021.
    """
    files = {"train": "laroseda_train.json", "test": "laroseda_test.json"}
    rows = _rows("laroseda", folder, part, files, lambda path: _loaded(path)["reviews"])

    def label(row: Mapping[str, Any]) -> int:
        if "label" in row:
            return int(_number("laroseda", row, "label"))
        return int(_number("laroseda", row, "starRating") > 3)

    texts = [
        f"{_text('laroseda', row, 'title')}. {_text('laroseda', row, 'text', 'content')}"
        for row in rows
    ]
    labels = np.array([label(row) for row in rows], np.int32)
    return Sentences(f"laroseda/{part}", texts, labels, class_names=("negative", "positive"))


def ro_sts(folder: Path | str, part: str) -> Sentences:
    """RO-STS: Romanian pairs of sentences, and how alike they are: the published 0 to 5, here 0 to
    1.

    Args:
        folder: with the published ``RO-STS.train.tsv`` and ``RO-STS.test.tsv`` (score, sentence,
            sentence), or with ``ro_sts_train.jsonl`` and ``ro_sts_test.jsonl`` of ``a``, ``b`` and
            ``score``, compressed or not.
        part: ``"train"`` or ``"test"``.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: for a row without texts or a score.

    References:
        Dumitrescu et al. LiRo: benchmark and leaderboard for Romanian language tasks. NeurIPS 2021.
    """
    files = {"train": "RO-STS.train.tsv", "test": "RO-STS.test.tsv"}
    rows = _rows(
        "ro_sts", folder, part, files, lambda path: _tsv(path, ("score", "a", "b")), "ro_sts_"
    )
    texts, others = ([_text("ro_sts", row, key) for row in rows] for key in ("a", "b"))
    scores = np.array([_number("ro_sts", row, "score") / 5 for row in rows], np.float32)
    return Sentences(f"ro_sts/{part}", texts, scores, others)


SETS: dict[str, Callable[[Path | str, str], Sentences]] = {
    "sst2": sst2,
    "laroseda": laroseda,
    "ro_sts": ro_sts,
}


def _rows(
    name: str,
    folder: Path | str,
    part: str,
    published: Mapping[str, str],
    read: Callable[[Path], Sequence[Mapping[str, Any]]],
    prefix: str = "",
) -> Sequence[Mapping[str, Any]]:
    """The rows of a set, from the published file or from JSON lines."""
    root = Path(folder)
    lines = [root / f"{prefix}{part}.jsonl{end}" for end in ("", ".gz")]
    for path in lines:
        if path.is_file():
            return list(_json_lines(path))
    path = root / published[part]
    if not path.is_file():
        there = sorted(p.name for p in root.iterdir()) if root.is_dir() else "nothing"
        raise FileNotFoundError(
            f"data set {name!r} needs {published[part]}, or {lines[0].name} (or .gz), in "
            f"{str(root)!r}, which holds {there}: give --config.data.dir=<folder>"
        )
    return read(path)


def _json_lines(path: Path) -> Iterator[Any]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            try:
                yield json.loads(line)
            except ValueError as fault:
                raise ValueError(f"line {number + 1} of {path} is no JSON: {fault}") from fault


def _loaded(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _tsv(path: Path, names: Sequence[str] | None = None) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, names, delimiter="\t", quoting=csv.QUOTE_NONE))


def _text(name: str, row: Mapping[str, Any], *keys: str) -> str:
    found = next((row[key] for key in keys if isinstance(row.get(key), str)), None)
    if found is None:
        raise ValueError(f"a row of {name!r} has no text under {keys[-1]!r}: {dict(row)}")
    return found


def _number(name: str, row: Mapping[str, Any], key: str) -> float:
    try:
        return float(row[key])
    except (KeyError, TypeError, ValueError) as fault:
        raise ValueError(f"a row of {name!r} has no number under {key!r}: {dict(row)}") from fault
