"""What steps read of a record: one of its texts, its words, pieces of them as numbers."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

import numpy as np

from jaxdistill.data.content import mixed, text_hashes
from jaxdistill.records.nouns import Record
from jaxdistill.records.requests import Request

Text = Literal["prompt", "answer", "rationale", "reference", "raw", "conversation"]
"""Which text of a record a step reads."""
OF_REQUESTS = ("prompt", "conversation", "reference")
"""Those that a request has before anybody answers."""

# Scripts without spaces between words: every character is a word.
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(f"[{_ALONE}]|[^\\W{_ALONE}]+")
_BREAK = "\n"


def text_of(item: Request | Record, of: Text) -> str:
    """One of the texts of a record or of a request.

    Args:
        item: the record or request.
        of: ``"prompt"`` is what the student is asked, without the system's words;
            ``"conversation"`` all that is said, the system's words too.

    Example:
        >>> text_of(Request.of("2 + 3?", system="Be short."), "prompt")
        '2 + 3?'
    """
    if of == "prompt":
        said = item.conversation if isinstance(item, Request) else item.prompt
        return _BREAK.join(each.content for each in said if each.role not in _SYSTEM)
    if of == "conversation":
        said = item.conversation if isinstance(item, Request) else item.messages
        return _BREAK.join(each.content for each in said)
    return getattr(item, of) or ""


_SYSTEM = ("system", "developer")


def normal(text: str) -> str:
    """A text as duplicates are compared: normal form C, without case, one space for many.

    Example:
        >>> normal("Two  Words\\n")
        'two words'
    """
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def words(text: str) -> list[str]:
    """The words of a text, without case and punctuation; of Chinese and Japanese the characters.

    Example:
        >>> words("It's 3.5 km."), words("知识 ok")
        (['it', 's', '3', '5', 'km'], ['知', '识', 'ok'])
    """
    return _WORD.findall(unicodedata.normalize("NFC", text).casefold())


def pieces(text: str, n: int, unit: Literal["characters", "words"]) -> np.ndarray:
    """The set of a text's n-grams as numbers: sorted, each once; uint64 ``[m]``.

    A text of fewer than ``n`` units is one piece, an empty one none.

    Example:
        >>> len(pieces("banana", 2, "characters"))
        3
    """
    if unit == "characters":
        code = np.frombuffer(normal(text).encode("utf-32-le", "surrogatepass"), "<u4")
        return np.unique(windows(code.astype(np.uint64), n))
    return np.unique(windows(text_hashes(words(text)), n))


def windows(values: np.ndarray, n: int) -> np.ndarray:
    """A number for each run of ``n`` values; for all of them together where there are fewer."""
    if not len(values):
        return values
    n_here = min(n, len(values))
    weights = mixed(np.arange(1, n_here + 1, dtype=np.uint64)) | np.uint64(1)
    found = np.lib.stride_tricks.sliding_window_view(values, n_here) @ weights
    return mixed(found + np.uint64(n_here))


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """The share that two sets of :func:`pieces` have in common; two empty ones are equal."""
    if not len(first) and not len(second):
        return 1.0
    # Both are sorted and without doubles, so what is common stands twice in a row.
    both = np.sort(np.concatenate([first, second]), kind="stable")
    common = int((both[1:] == both[:-1]).sum())
    return common / (len(both) - common)
