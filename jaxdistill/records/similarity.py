"""Filters by meaning: cosines of embeddings, in blocks, by any embedder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill.data.content import mixed, text_hashes
from jaxdistill.progress import shown
from jaxdistill.records.canonical import identity
from jaxdistill.records.steps import BALANCED, SAMPLES, UNIQUE, Decision, deciding
from jaxdistill.records.texts import Text, normal, text_of, windows
from jaxdistill.records.texts import words as words_of
from jaxdistill.settings import Count, Positive

Embedder = Callable[[Sequence[str]], Any]
"""``texts -> array [n, D]``. Attributes ``name`` and ``revision`` say in manifests which one it is.
"""


@dataclasses.dataclass(frozen=True)
class HashedEmbedder:
    """Counts of character n-grams, hashed into a row of fixed width: it needs no weights.

    Texts of one language with common wording are close; paraphrases in other words are not.

    Attributes:
        width: of the row.
        n: characters in a piece.

    Example:
        >>> rows = HashedEmbedder(64)(["the cat sat", "the cat sits", "42"])
        >>> bool(rows[0] @ rows[1] > 0.5 > abs(rows[0] @ rows[2]))
        True
    """

    width: Count = 512
    n: Count = 3

    @property
    def name(self) -> str:
        """With its settings."""
        return f"hashed-{self.width}-{self.n}"

    revision = "1"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows, float32 ``[n, width]``."""
        found = np.zeros((len(texts), self.width), np.float32)
        for row, text in zip(found, texts, strict=True):
            code = np.frombuffer(normal(text).encode("utf-32-le", "surrogatepass"), "<u4")
            keys = mixed(windows(code.astype(np.uint64), self.n))
            signs = np.where(keys >> np.uint64(63), 1, -1).astype(np.float32)
            np.add.at(row, (keys % np.uint64(self.width)).astype(np.int64), signs)
        return _unit(found)


@dataclasses.dataclass(frozen=True)
class DictionaryEmbedder:
    """Counts of words, those of a second language as the words they translate to: texts of two
    languages that say the same are close, in whatever order. It needs no weights.

    Attributes:
        words: of the second language, each with its translation.
        width: of the row that words are hashed into.

    Example:
        >>> embedder = DictionaryEmbedder({"katze": "cat", "schwarze": "black"})
        >>> rows = embedder(["black cat", "Katze, schwarze", "the dog"])
        >>> [round(float(rows[0] @ row), 2) for row in rows]
        [1.0, 1.0, 0.0]
    """

    words: Mapping[str, str]
    width: Count = 4096

    @property
    def name(self) -> str:
        """With its settings and its dictionary."""
        return f"dictionary-{self.width}-{identity(self.words)[:12]}"

    revision = "1"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows, float32 ``[n, width]``."""
        found = np.zeros((len(texts), self.width), np.float32)
        for row, text in zip(found, texts, strict=True):
            said = [self.words.get(word, word) for word in words_of(text)]
            if said:
                keys = text_hashes(said)
                np.add.at(row, (keys % np.uint64(self.width)).astype(np.int64), 1)
        return _unit(found)


@deciding(gives=(UNIQUE,), undoes=(SAMPLES, BALANCED), requests=True)
def semantic_duplicates(
    items: Sequence[Any],
    seed: int,
    *,
    embedder: Embedder,
    of: Text = "prompt",
    threshold: Positive = 0.9,
    block: Count = 1024,
) -> list[Decision]:
    """Drops what is close in meaning to a record that stays (Abbas et al., SemDeDup, 2023; there
    within clusters, here among all).

    All pairs are compared, in blocks on the default device of JAX: time is quadratic, memory is
    linear.

    Args:
        items: records or requests.
        seed: not used.
        embedder: ``texts -> rows``.
        of: which text is compared.
        threshold: the cosine from which two are the same.
        block: rows of a block.
    """
    rows = _embedded(embedder, [text_of(each, of) for each in items], block)
    count = len(items)
    keep = np.ones(count, bool)
    twin, score = np.zeros(count, np.int64), np.zeros(count)
    nearest = _nearest(block)
    blocks = range(0, len(rows), block)
    for start in shown(blocks, "compare", "blocks"):
        own = rows[start : start + block]
        for other in range(0, start, block):
            kept = _masked(keep, other, block)
            found, place = (
                np.asarray(each) for each in nearest(own, rows[other : other + block], kept)
            )
            for i in np.flatnonzero(found >= threshold).tolist():
                if start + i < count and keep[start + i]:
                    keep[start + i] = False
                    twin[start + i], score[start + i] = other + int(place[i]), found[i]
        within = np.asarray(_products(own, own))
        for i in range(1, min(block, count - start)):
            if keep[start + i]:
                near = np.flatnonzero((within[i, :i] >= threshold) & keep[start : start + i])
                if len(near):
                    keep[start + i] = False
                    twin[start + i], score[start + i] = start + near[0], within[i, near[0]]
    return [
        Decision(each)
        if keep[i]
        else Decision(each, False, float(score[i]), "same meaning", items[twin[i]].id)
        for i, each in enumerate(items)
    ]


@deciding(requests=True, check=lambda said: "" if said["against"] else "'against' has no texts")
def unlike(
    items: Sequence[Any],
    seed: int,
    *,
    embedder: Embedder,
    against: Sequence[str],
    of: Text = "prompt",
    threshold: Positive = 0.9,
    block: Count = 1024,
) -> list[Decision]:
    """Drops what is close in meaning to one of some texts: paraphrases of a test set.

    Args:
        items: records or requests.
        seed: not used.
        embedder: ``texts -> rows``.
        against: the texts.
        of: which text is compared.
        threshold: the cosine from which two are the same.
        block: rows of a block.
    """
    rows = _embedded(embedder, [text_of(each, of) for each in items], block)
    held = _embedded(embedder, against, block)
    nearest = _nearest(block)
    best = np.full(len(rows), -np.inf)
    place = np.zeros(len(rows), np.int64)
    for start in shown(range(0, len(rows), block), "compare", "blocks"):
        here = slice(start, start + block)
        for other in range(0, len(held), block):
            real = np.arange(other, other + block) < len(against)
            found, where = (
                np.asarray(each) for each in nearest(rows[here], held[other : other + block], real)
            )
            better = found > best[here]
            place[here] = np.where(better, other + where, place[here])
            best[here] = np.where(better, found, best[here])
    return [
        Decision(each, score < threshold, float(score), *_if(score >= threshold, place[i]))
        for i, (each, score) in enumerate(zip(items, best, strict=False))
    ]


def _if(near: bool, place: int) -> tuple[str, ...]:
    return ("close to a text of 'against'", f"number {place}") if near else ()


@deciding()
def similar(
    items: Sequence[Any],
    seed: int,
    *,
    embedder: Embedder,
    first: Text = "prompt",
    second: Text = "answer",
    threshold: Positive = 0.8,
    block: Count = 1024,
) -> list[Decision]:
    """Keeps records of which two texts are close: translations that say what was said.

    Args:
        items: records.
        seed: not used.
        embedder: ``texts -> rows``, for translations one of several languages.
        first: one text.
        second: the other one.
        threshold: the least cosine.
        block: how many are embedded at once.
    """
    count = len(items)
    one, two = (
        _embedded(embedder, [text_of(each, of) for each in items], block)[:count]
        for of in (first, second)
    )
    scores = np.einsum("nd,nd->n", one, two)
    return [
        Decision(each, bool(s >= threshold), float(s), "" if s >= threshold else "not similar")
        for each, s in zip(items, scores, strict=True)
    ]


def _embedded(embedder: Embedder, texts: Sequence[str], block: int) -> np.ndarray:
    """Unit rows of texts, float32, with rows of zeros up to whole blocks."""
    found = []
    for start in range(0, len(texts), block):
        part = texts[start : start + block]
        rows = np.asarray(embedder(part), np.float32)
        if rows.ndim != 2 or len(rows) != len(part):
            raise ValueError(
                f"an embedder makes a row of each text: of {len(part)} texts this one made "
                f"{list(rows.shape)}"
            )
        if not np.isfinite(rows).all():
            raise ValueError("an embedder gave rows that are not finite")
        found.append(np.pad(_unit(rows), ((0, block - len(part)), (0, 0))))
    return np.concatenate(found) if found else np.zeros((0, 1), np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; those of zeros stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length, length, 1)


def _masked(keep: np.ndarray, start: int, block: int) -> np.ndarray:
    part = keep[start : start + block]
    return np.pad(part, (0, block - len(part)))


def _products(rows: Any, others: Any) -> Any:
    import jax
    import jax.numpy as jnp

    return jnp.matmul(rows, others.T, precision=jax.lax.Precision.HIGHEST)


def _nearest(block: int) -> Callable[..., Any]:
    """``(rows [B, D], others [B, D], whether each counts [B]) -> (cosine [B], place [B])``."""
    import jax
    import jax.numpy as jnp

    def nearest(rows, others, real):
        found = jnp.where(real[None], _products(rows, others), -jnp.inf)
        return found.max(1), found.argmax(1)

    return jax.jit(nearest)
