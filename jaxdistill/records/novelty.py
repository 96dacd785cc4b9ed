"""Novelty: what is new beside all that came before it, by ROUGE-L."""

from __future__ import annotations

import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxdistill.progress import shown
from jaxdistill.records.duplicates import a_share
from jaxdistill.records.steps import BALANCED, SAMPLES, Decision, deciding
from jaxdistill.records.texts import Text, text_of, words
from jaxdistill.settings import Positive


def rouge_l(first: Sequence[Any], second: Sequence[Any]) -> float:
    """ROUGE-L: the harmonic mean of the shares that the longest common subsequence has of both
    (Lin, 2004, with beta 1); of two empty ones 0.

    Args:
        first: the words of a text, see :func:`~jaxdistill.records.texts.words`.
        second: those of the other.

    Example:
        >>> rouge_l("police killed the gunman".split(), "police kill the gunman".split())
        0.75
    """
    total = len(first) + len(second)
    return 2 * common_subsequence(first, second) / total if total else 0.0


def common_subsequence(first: Sequence[Any], second: Sequence[Any]) -> int:
    """The length of the longest common subsequence, with a bit for each place of ``first``
    (Hyyrö, 2004).

    Example:
        >>> common_subsequence("abcbdab", "bdcaba")
        4
    """
    places: dict[Any, int] = {}
    for place, each in enumerate(first):
        places[each] = places.get(each, 0) | 1 << place
    whole = (1 << len(first)) - 1
    row = whole
    for each in second:
        match = row & places.get(each, 0)
        row = (row + match | row - match) & whole
    return len(first) - row.bit_count()


class Pool:
    """Texts beside which others are new or not.

    A text that is similar enough shares one of a text's rarest words, of which an index holds
    enough to miss none, and several of these if they are common (prefix filtering: Chaudhuri et
    al., 2006); only such texts are compared.

    Args:
        threshold: the similarity from which a text is not new.
        texts: all that may be asked about, from which the rarity of words is taken; none is fine,
            and slower.

    Example:
        >>> pool = Pool(0.7)
        >>> pool.add("the cat sat on the mat"), pool.nearest("the cat sat on a mat")
        (0, (0.833..., 0))
    """

    def __init__(self, threshold: float, texts: Iterable[Sequence[str]] = ()):
        self._threshold = threshold
        self._rarity: Counter[str] = Counter()
        for each in texts:
            self._rarity.update(each)
        self._held: list[list[str]] = []
        # Of a word, and how often it came before in its text: the texts that have it among their
        # rarest, by number.
        self._index: dict[tuple[str, int], array.array] = {}
        self._lengths = array.array("q")

    def __len__(self) -> int:
        return len(self._held)

    def add(self, text: str | list[str]) -> int:
        """Puts a text into the pool, and says its number there."""
        own = words(text) if isinstance(text, str) else text
        number = len(self._held)
        self._held.append(own)
        self._lengths.append(len(own))
        for key in self._prefix(own):
            self._index.setdefault(key, array.array("q")).append(number)
        return number

    def nearest(self, text: str | list[str]) -> tuple[float, int | None]:
        """The first text of the pool that reaches the threshold, and how similar it is; if none
        does, ``(0, None)``."""
        own = words(text) if isinstance(text, str) else text
        bag = Counter(own)
        for number in self._candidates(own):
            other = self._held[number]
            if (bag & Counter(other)).total() < self._needed(own, other):
                continue
            score = rouge_l(own, other)
            if score >= self._threshold:
                return score, number
        return 0.0, None

    def _candidates(self, own: Sequence[str]) -> list[int]:
        """The texts that may be similar enough, by number.

        Of two texts' words that are not among the rarest of one, only as many can be shared as that
        one has: all others must be shared among the rarest.
        """
        found = [self._index[key] for key in self._prefix(own) if key in self._index]
        if not found:
            return []
        both = np.concatenate([np.frombuffer(each, np.int64) for each in found])
        numbers, hits = np.unique(both, return_counts=True)
        lengths = np.frombuffer(self._lengths, np.int64)[numbers]
        others = np.maximum(self._shared(lengths), self._shared(len(own))) - 1
        needed = self._threshold * (len(own) + lengths) / 2 - 1e-9
        fine = (hits + others >= needed) & (np.minimum(lengths, len(own)) >= needed)
        return numbers[fine].tolist()

    def _shared(self, length: Any) -> Any:
        """How many words a text of that length shares at least with any similar one: of m words
        m t / (2 - t), as the other has at least as many."""
        return np.maximum(np.ceil(length * self._threshold / (2 - self._threshold) - 1e-9), 1)

    def _needed(self, own: Sequence[str], other: Sequence[str]) -> float:
        """How many words two texts must share."""
        return self._threshold * (len(own) + len(other)) / 2 - 1e-9

    def _prefix(self, own: Sequence[str]) -> list[tuple[str, int]]:
        """The rarest words, each with how often it came before, as many as any similar text must
        share one of."""
        seen: Counter[str] = Counter()
        keys = []
        for each in own:
            keys.append((each, seen[each]))
            seen[each] += 1
        keys.sort(key=lambda key: (self._rarity[key[0]], key))
        return keys[: len(own) - int(self._shared(len(own))) + 1]


@deciding(undoes=(SAMPLES, BALANCED), requests=True, check=a_share)
def novel(
    items: Sequence[Any],
    seed: int,
    *,
    of: Text = "prompt",
    threshold: Positive = 0.7,
    pool: Sequence[str] = (),
) -> list[Decision]:
    """Keeps what is less than so similar, by ROUGE-L, to all that is kept before it (Wang et al.,
    Self-Instruct, 2023). Words are compared, of Chinese and Japanese characters.

    Args:
        items: records or requests.
        seed: not used.
        of: which text is compared.
        threshold: the similarity from which a text is not new.
        pool: texts that are there already.
    """
    texts = [words(text_of(each, of)) for each in items]
    seeds = [words(each) for each in pool]
    held = Pool(threshold, (*seeds, *texts))
    names = [f"number {held.add(each)} of 'pool'" for each in seeds]
    found = []
    for each, text in zip(shown(items, "compare", "records"), texts, strict=True):
        score, near = held.nearest(text)
        if near is not None:
            found.append(Decision(each, False, score, "not new", names[near]))
            continue
        held.add(text)
        names.append(each.id)
        found.append(Decision(each))
    return found
