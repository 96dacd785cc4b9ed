"""Reading answers: the parts of a text, or that it has none. What cannot be read is dropped and
counted, so the coverage of a reader is in the manifest."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import string
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from jaxdistill.records.cleaning import tags_pattern
from jaxdistill.records.nouns import Record
from jaxdistill.records.steps import Decision, deciding
from jaxdistill.settings import Finite

_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?|-?\.\d+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WORD = re.compile(r"\w+")
_LIST = re.compile(r"\[.*?\]")


class Parts(NamedTuple):
    """What a text says: its thinking, and its answer."""

    rationale: str
    answer: str


# --- readers: text -> what it says, or None ----------------------------------------------------


def last_number(text: str) -> str | None:
    """The last number of a text, without thousands separators and currency.

    Example:
        >>> last_number("3 + 4 = 7, so $1,250.50."), last_number("none")
        ('1250.50', None)
    """
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "").replace("$", "") if found else None


def after(text: str, marker: str) -> Parts | None:
    """What stands behind the last marker, to the end of its line, and all that is before it.

    Example:
        >>> after("2 and 3 is 5.\\n#### 5", "####")
        Parts(rationale='2 and 3 is 5.', answer='5')
    """
    before, found, behind = text.rpartition(marker)
    answer = behind.strip().split("\n")[0].strip()
    return Parts(before.strip(), answer) if found and answer else None


def strings(text: str) -> list[str] | None:
    """The first JSON list of strings in a text, wherever it stands.

    Example:
        >>> strings('Sure: ["Paris", "x [1]"].'), strings('[1, "a"]')
        (['Paris', 'x [1]'], None)
    """
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\[", text):
        try:
            found, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        return found if all(isinstance(each, str) for each in found) else None
    return None


def published_strings(text: str) -> list[str]:
    """A JSON list of strings as UniversalNER's evaluation reads it: the text must begin with it, on
    one line, and it ends at the first ``]``; whatever else is there counts as no entity. Entities
    are :func:`normal_entity`, each once, sorted.

    Example:
        >>> published_strings('["The Paris", "paris"]'), published_strings(' ["Paris"]')
        (['paris'], [])
    """
    match = _LIST.match(text)
    try:
        found = json.loads(match.group()) if match else []
    except (ValueError, RecursionError):
        return []
    if not all(isinstance(each, str) for each in found):
        return []
    return sorted({normal_entity(each) for each in found})


def normal_entity(text: str) -> str:
    """An entity as it is compared: lower case, no ASCII punctuation, no articles, single spaces.

    Example:
        >>> normal_entity("The  Eiffel Tower")
        'eiffel tower'
    """
    bare = "".join(each for each in text.lower() if each not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def first_score(text: str) -> float | None:
    """The first number that stands alone in a text, as T2I-Eval reads scores: between spaces, as
    Python reads it; ``N/A`` before it is none. What is not finite is none either.

    Example:
        >>> first_score("Score: 7"), first_score("8/10"), first_score("nan")
        (7.0, None, None)
    """
    return _first_number(text.split(), ("N/A",))


def last_score(text: str) -> float | None:
    """The last number that stands alone in a text, as T2I-Eval sorts answers into bins: of several
    grades in one answer that of the whole. ``N/A`` or ``None`` behind it is none, and so is what
    is not finite.

    Example:
        >>> last_score("Look: torn 3. Overall: 7"), last_score("3 and then N/A"), last_score("8/10")
        (7.0, None, None)
    """
    return _first_number(reversed(text.split()), ("N/A", "None"))


def _first_number(pieces: Iterable[str], none: Sequence[str]) -> float | None:
    """The first piece that is a number, unless one that stands for none comes before it."""
    for each in pieces:
        if each in none:
            return None
        try:
            found = float(each)
        except ValueError:
            continue
        return found if math.isfinite(found) else None
    return None


def yes(text: str) -> float | None:
    """1 if a text begins with yes, 0 if with no, in whatever case; else it says neither.

    Example:
        >>> yes("Yes, it is."), yes("no"), yes("not sure")
        (1.0, 0.0, None)
    """
    first = _WORD.match(text.strip().casefold())
    return {"yes": 1.0, "no": 0.0}.get(first[0]) if first else None


# --- steps -------------------------------------------------------------------------------------


def _read(
    items: Sequence[Record], reader: Callable[[str], dict[str, Any] | None], reason: str
) -> list[Decision]:
    found = []
    for each in items:
        parts = reader(each.raw)
        if parts is None:
            found.append(Decision(each, False, reason=reason))
        else:
            found.append(Decision(dataclasses.replace(each, **parts)))
    return found


@deciding(gives=("answers that are read",))
def read_tags(
    items: Sequence[Record],
    seed: int,
    *,
    rationale: str = "think",
    answer: str = "answer",
) -> list[Decision]:
    """Reads ``<think>...</think><answer>...</answer>``.

    Args:
        items: records.
        seed: not used.
        rationale: the tag of the thinking.
        answer: that of the answer.
    """
    pattern = tags_pattern((rationale, answer))

    def reader(text: str) -> dict[str, Any] | None:
        match = pattern.fullmatch(text)
        if match is None or not match.group(2).strip():
            return None
        return {"rationale": match.group(1).strip(), "answer": match.group(2).strip()}

    return _read(items, reader, "no tags")


@deciding(gives=("answers that are read",))
def read_marker(
    items: Sequence[Record],
    seed: int,
    *,
    marker: str = "####",
    otherwise: Literal["drop", "number"] = "drop",
) -> list[Decision]:
    """Reads the answer behind a marker, the thinking before it.

    Args:
        items: records.
        seed: not used.
        marker: such as ``"####"`` or ``"The answer is"``.
        otherwise: what becomes of a text without it: it is dropped (strict), or its last number is
            its answer (lenient).
    """

    def reader(text: str) -> dict[str, Any] | None:
        if (parts := after(text, marker)) is not None:
            return parts._asdict()
        number = last_number(text) if otherwise == "number" else None
        return None if number is None else {"rationale": text.strip(), "answer": number}

    return _read(items, reader, "no marker")


@deciding(gives=("answers that are read",))
def read_strings(items: Sequence[Record], seed: int) -> list[Decision]:
    """Reads a JSON list of strings (:func:`strings`); the answer is that list, as JSON.

    Args:
        items: records.
        seed: not used.
    """

    def reader(text: str) -> dict[str, Any] | None:
        found = strings(text)
        return None if found is None else {"answer": json.dumps(found, ensure_ascii=False)}

    return _read(items, reader, "no list of strings")


@deciding(gives=("answers that are read", "score {name}"))
def read_score(
    items: Sequence[Record],
    seed: int,
    *,
    name: str = "score",
    low: Finite = 0.0,
    high: Finite = 10.0,
    which: Literal["first", "last"] = "first",
) -> list[Decision]:
    """Reads a score (:func:`first_score`, :func:`last_score`) into ``scores``.

    Args:
        items: records.
        seed: not used.
        name: of the score.
        low: the lowest one that there is.
        high: the highest one.
        which: the first number that stands alone, or the last one.
    """
    reader = first_score if which == "first" else last_score
    found = []
    for each in items:
        score = reader(each.raw)
        wrong = "no score" if score is None else "" if low <= score <= high else "out of bounds"
        if not wrong and score is not None:
            each = dataclasses.replace(each, scores={**each.scores, name: score})
        found.append(Decision(each, not wrong, score, wrong))
    return found
