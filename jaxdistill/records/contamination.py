"""Decontamination: no record may hold a run of words of a test set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill.data.content import text_hashes
from jaxdistill.progress import shown
from jaxdistill.records.steps import Decision, deciding
from jaxdistill.records.texts import Text, text_of, windows, words
from jaxdistill.settings import Count


def _has_words(said: Mapping[str, Any]) -> str:
    return "" if any(map(words, said["against"])) else "'against' has no words to search for"


@deciding(requests=True, check=_has_words)
def decontaminated(
    items: Sequence[Any],
    seed: int,
    *,
    against: Sequence[str],
    of: Text = "conversation",
    n: Count = 13,
) -> list[Decision]:
    """Drops what shares a run of ``n`` words with a text of a test set (Brown et al., 2020).

    A text of fewer than ``n`` words is found where a record has exactly its words. Run it on
    requests, before anybody is asked, and on records, whose answers may quote the test set.

    Args:
        items: records or requests.
        seed: not used.
        against: texts of the test set: questions, or questions with answers.
        of: which text is searched.
        n: words of a run.
    """
    runs = leaks(against, n)
    return [
        Decision(each, False, float(hits), f"{n} words of a test set")
        if (hits := int(np.isin(_runs(text_of(each, of), n), runs, assume_unique=True).sum()))
        else Decision(each, score=0.0)
        for each in shown(items, "search", "records")
    ]


def leaks(against: Iterable[str], n: int) -> np.ndarray:
    """The runs of ``n`` words of some texts, as sorted numbers."""
    return np.unique(np.concatenate([_runs(each, n) for each in against]))


def _runs(text: str, n: int) -> np.ndarray:
    return np.unique(windows(text_hashes(words(text)), n))
