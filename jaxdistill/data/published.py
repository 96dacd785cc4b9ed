"""Published sets of texts that are classified or scored, as files on a disk."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.data.documents import json_of, json_rows, refuse_halves, text_of
from jaxdistill.data.sentences import Sentences


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
    texts = [row.text("text", "sentence") for row in rows]
    labels = np.array([row.whole("label", 0, 1) for row in rows], np.int32)
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
    rows = _rows("laroseda", folder, part, files, _reviews)

    def label(row: _Row) -> int:
        return row.whole("label", 0, 1) if "label" in row.values else row.whole("starRating") > 3

    texts = [f"{row.text('title')}. {row.text('text', 'content')}" for row in rows]
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
    return _pairs(f"ro_sts/{part}", rows, _score)


def stsb(folder: Path | str, part: str) -> Sentences:
    """STS-B: English pairs of sentences, and how alike they are: the published 0 to 5, here 0 to 1.

    Args:
        folder: with GLUE's ``train.tsv`` and ``dev.tsv`` (GLUE gives no scores of its test set), or
            with ``stsb_train.jsonl`` and ``stsb_test.jsonl`` of ``a``, ``b`` and ``score``,
            compressed or not.
        part: ``"train"`` or ``"test"``.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: for a row without texts or a score.

    References:
        Cer et al. SemEval-2017 Task 1: Semantic Textual Similarity. SemEval 2017.
    """
    rows = _rows("stsb", folder, part, {"train": "train.tsv", "test": "dev.tsv"}, _tsv, "stsb_")
    return _pairs(f"stsb/{part}", rows, _score)


def mrpc(folder: Path | str, part: str) -> Sentences:
    """MRPC: pairs of sentences of the news, paraphrases or not.

    Args:
        folder: with the corpus's ``msr_paraphrase_train.txt`` and ``msr_paraphrase_test.txt``, or
            with ``mrpc_train.jsonl`` and ``mrpc_test.jsonl`` of ``a``, ``b`` and ``label`` (1 for a
            paraphrase), compressed or not.
        part: ``"train"`` or ``"test"``.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: for a row without texts or a label.

    References:
        Dolan, Brockett. Automatically Constructing a Corpus of Sentential Paraphrases. IWP 2005.
    """
    files = {kind: f"msr_paraphrase_{kind}.txt" for kind in ("train", "test")}
    rows = _rows("mrpc", folder, part, files, _tsv, "mrpc_")

    def label(row: _Row) -> int:
        return row.whole("label" if "label" in row.values else "Quality", 0, 1)

    return _pairs(f"mrpc/{part}", rows, label, ("other", "paraphrase"))


def rte(folder: Path | str, part: str) -> Sentences:
    """RTE: pairs of texts, of which the second follows from the first or not.

    Args:
        folder: with GLUE's ``train.tsv`` and ``dev.tsv`` (GLUE gives no labels of its test set), or
            with ``rte_train.jsonl`` and ``rte_dev.jsonl`` of ``a``, ``b`` and ``label`` (0 for
            entailment), compressed or not.
        part: ``"train"`` or ``"test"``.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: for a row without texts or a label.

    References:
        Wang et al. GLUE. ICLR 2019, from four challenges since Dagan et al. 2006.
    """
    classes = ("entailment", "not_entailment")
    named = {"train": "train", "test": "dev"}[part]
    rows = _rows(
        "rte", folder, named, {kind: f"{kind}.tsv" for kind in ("train", "dev")}, _tsv, "rte_"
    )

    def label(row: _Row) -> int:
        said = row.values.get("label")
        return classes.index(said) if said in classes else row.whole("label", 0, 1)

    return _pairs(f"rte/{part}", rows, label, classes)


SETS: dict[str, Callable[[Path | str, str], Sentences]] = {
    "sst2": sst2,
    "laroseda": laroseda,
    "ro_sts": ro_sts,
    "stsb": stsb,
    "mrpc": mrpc,
    "rte": rte,
}
"""Published sets of texts by name: functions of a folder and a part."""
PAIRS, SCORED = ("ro_sts", "stsb", "mrpc", "rte"), ("ro_sts", "stsb")
"""Those of pairs, and those whose labels are scores."""


class _Row(NamedTuple):
    """A row of a published file, and where it is."""

    where: str
    values: Mapping[str, Any]

    def text(self, *keys: str) -> str:
        """The first of these keys that is a text."""
        found = next((self.values[k] for k in keys if isinstance(self.values.get(k), str)), None)
        if found is None:
            raise ValueError(f"{self.where} has no text under {keys[-1]!r}: {dict(self.values)}")
        refuse_halves(found, self.where)
        return found

    def number(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number between two bounds."""
        try:
            found = float(self.values[key])
        except (KeyError, TypeError, ValueError) as fault:
            raise ValueError(
                f"{self.where} has no number under {key!r}: {dict(self.values)}"
            ) from fault
        if not (math.isfinite(found) and low <= found <= high):
            raise ValueError(
                f"{self.where} has {key!r} {found:g}, not a number from {low} to {high}"
            )
        return found

    def whole(self, key: str, low: float = -math.inf, high: float = math.inf) -> int:
        """A whole number between two bounds."""
        found = self.number(key, low, high)
        if found != int(found):
            raise ValueError(f"{self.where} has {key!r} {found:g}, not a whole number")
        return int(found)


def _rows(
    name: str,
    folder: Path | str,
    part: str,
    published: Mapping[str, str],
    read: Callable[[Path], Iterable[tuple[str, Any]]],
    prefix: str = "",
) -> list[_Row]:
    """The rows of a set, from the published file or from JSON lines."""
    root = Path(folder)
    lines = [root / f"{prefix}{part}.jsonl{end}" for end in ("", ".gz")]
    path = next((path for path in lines if path.is_file()), None)
    if path is not None:
        found = [(f"line {number} of {path}", row) for number, row in json_rows(path)]
    else:
        path = root / published[part]
        if not path.is_file():
            there = sorted(p.name for p in root.iterdir()) if root.is_dir() else "nothing"
            raise FileNotFoundError(
                f"data set {name!r} needs {published[part]}, or {lines[0].name} (or .gz), in "
                f"{str(root)!r}, which holds {there}: give --config.data.dir=<folder>"
            )
        found = list(read(path))
    if not found:
        raise ValueError(f"{path} is empty")
    for where, row in found:
        if not isinstance(row, dict):
            raise ValueError(f"{where} is no JSON object: {row!r}")
    return [_Row(*each) for each in found]


def _reviews(path: Path) -> Iterator[tuple[str, Any]]:
    whole = json_of(text_of(path), str(path))
    if not isinstance(whole, dict) or not isinstance(whole.get("reviews"), list):
        raise ValueError(f"{path} holds no list of 'reviews'")
    for number, row in enumerate(whole["reviews"], 1):
        yield f"review {number} of {path}", row


def _tsv(path: Path, names: Sequence[str] | None = None) -> Iterator[tuple[str, Any]]:
    lines = csv.DictReader(
        io.StringIO(text_of(path), newline=""), names, delimiter="\t", quoting=csv.QUOTE_NONE
    )
    try:
        for row in lines:
            yield f"line {lines.line_num} of {path}", row
    except csv.Error as fault:
        raise ValueError(f"line {lines.line_num + 1} of {path}: {fault}") from fault


def _pairs(
    name: str,
    rows: Sequence[_Row],
    label: Callable[[_Row], float],
    class_names: tuple[str, ...] = (),
) -> Sentences:
    """Pairs of texts with their classes, or without names of these with their scores."""
    first = [row.text("a", "sentence1", "#1 String") for row in rows]
    second = [row.text("b", "sentence2", "#2 String") for row in rows]
    labels = np.array([label(row) for row in rows], np.int32 if class_names else np.float32)
    return Sentences(name, first, labels, second, class_names=class_names)


def _score(row: _Row) -> float:
    return row.number("score", 0, 5) / 5
