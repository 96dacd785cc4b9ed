"""Steps that look at one text at a time: normal form, length, tags, scripts, repetition."""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from jaxdistill._errors import unknown
from jaxdistill.records.nouns import Record
from jaxdistill.records.steps import UNIQUE, Decision, deciding
from jaxdistill.records.texts import Text, text_of, words
from jaxdistill.settings import Count, Natural, Share

SCRIPTS = (
    "latin",
    "han",
    "kana",
    "hangul",
    "cyrillic",
    "greek",
    "arabic",
    "hebrew",
    "devanagari",
    "bengali",
    "tamil",
    "thai",
    "georgian",
    "armenian",
    "other",
)
"""Scripts that letters are told apart by."""
_NAMES = {"cjk": "han", "hiragana": "kana", "katakana": "kana"}
_SPACES = re.compile(r"[ \t\u00a0\u2000-\u200a\u202f\u3000]+")
_LINES = re.compile(r"\n{3,}")


@deciding(undoes=(UNIQUE,))
def normalised(items: Sequence[Record], seed: int) -> list[Decision]:
    """Writes texts in Unicode's normal form C, with simple spaces and line ends, at most one empty
    line together, and nothing at their ends. ``raw`` stays as it was.

    Indentation stays: spaces are joined only behind the first character of a line.

    Args:
        items: records.
        seed: not used.
    """
    found = []
    for each in items:
        messages = tuple(dataclasses.replace(m, content=_tidy(m.content)) for m in each.messages)
        changed = dataclasses.replace(
            each, messages=messages, answer=_tidy(each.answer), rationale=_tidy(each.rationale)
        )
        found.append(Decision(changed))
    return found


def _tidy(text: str) -> str:
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    lines = []
    for each in text.split("\n"):
        bare = each.lstrip()
        indent = each[: len(each) - len(bare)].replace("\u00a0", " ")
        lines.append(indent + _SPACES.sub(" ", bare).rstrip() if bare else "")
    return _LINES.sub("\n\n", "\n".join(lines)).strip()


@deciding()
def finished(items: Sequence[Record], seed: int) -> list[Decision]:
    """Drops answers that were cut because they became too long, and empty ones.

    Args:
        items: records.
        seed: not used.
    """
    found = []
    for each in items:
        cut, empty = each.finish == "length", not each.answer.strip()
        reason = "cut" if cut else "empty" if empty else ""
        found.append(Decision(each, not reason, reason=reason))
    return found


def _countable(said: Mapping[str, Any]) -> str:
    least, most = said["least"], said["most"]
    if said["unit"] == "tokens" and said["tokens"] is None:
        return "unit='tokens' needs 'tokens', which counts those of a text"
    if most is not None and most < least:
        return f"nothing is at least {least} and at most {most} long"
    return ""


@deciding(requests=True, check=_countable)
def length(
    items: Sequence[Any],
    seed: int,
    *,
    of: Text = "answer",
    unit: Literal["characters", "words", "tokens"] = "words",
    least: Natural = 0,
    most: Count | None = None,
    tokens: Callable[[str], int] | None = None,
) -> list[Decision]:
    """Drops texts that are too short or too long.

    Args:
        items: records or requests.
        seed: not used.
        of: which text is measured.
        unit: what is counted.
        least: so many are enough.
        most: so many are not too many.
        tokens: counts the tokens of a text, for that unit.
    """
    count = {"characters": len, "words": lambda text: len(words(text)), "tokens": tokens}[unit]
    found = []
    for each in items:
        size = count(text_of(each, of))  # type: ignore[misc]
        long = most is not None and size > most
        reason = "too short" if size < least else "too long" if long else ""
        found.append(Decision(each, not reason, float(size), reason))
    return found


@deciding()
def tagged(
    items: Sequence[Record], seed: int, *, tags: Sequence[str] = ("think", "answer")
) -> list[Decision]:
    """Keeps answers that are ``<a>...</a><b>...</b>`` for tags ``a, b``: each once, in order, none
    empty, nothing but space around them.

    Args:
        items: records.
        seed: not used.
        tags: the names.
    """
    whole = tags_pattern(tags)
    found = []
    for each in items:
        match = whole.fullmatch(each.raw)
        fine = match is not None and all(part.strip() for part in match.groups())
        reason = "" if fine else "tags out of order" if match is None else "empty part"
        found.append(Decision(each, fine, reason=reason))
    return found


def tags_pattern(tags: Sequence[str]) -> re.Pattern[str]:
    """What :func:`tagged` holds answers against; a group for each part."""
    marks = "|".join(rf"</?{re.escape(tag)}>" for tag in tags)
    inner = rf"((?:(?!{marks}).)*)"
    parts = (rf"<{re.escape(tag)}>{inner}</{re.escape(tag)}>" for tag in tags)
    return re.compile(r"\s*" + r"\s*".join(parts) + r"\s*", re.DOTALL)


def _known_scripts(said: Mapping[str, Any]) -> str:
    strange = [each for each in said["scripts"] if each not in SCRIPTS]
    return unknown("script", strange[0], SCRIPTS) if strange else ""


@deciding(requests=True, check=_known_scripts)
def in_scripts(
    items: Sequence[Any],
    seed: int,
    *,
    scripts: Sequence[str] = ("latin",),
    of: Text = "answer",
    most: Share = 0.05,
) -> list[Decision]:
    """Drops texts that mix in other scripts: answers that change their language on the way.

    Args:
        items: records or requests.
        seed: not used.
        scripts: those that are expected, such as ``("han", "kana", "latin")``.
        of: which text is read.
        most: the share of letters of other scripts that is not too much.
    """
    found = []
    for each in items:
        counts = Counter(text_of(each, of))
        letters = {c: k for c, k in counts.items() if c.isalpha()}
        total = sum(letters.values())
        strange = sum(k for c, k in letters.items() if script_of(c) not in scripts)
        share = strange / total if total else 0.0
        reason = "" if share <= most else "another script"
        found.append(Decision(each, not reason, share, reason))
    return found


@functools.lru_cache(2**16)
def script_of(letter: str) -> str:
    """The script of a letter, by its name in Unicode.

    Example:
        >>> script_of("é"), script_of("ж"), script_of("知")
        ('latin', 'cyrillic', 'han')
    """
    first = unicodedata.name(letter, "other").split()[0].split("-")[0].lower()
    name = _NAMES.get(first, first)
    return name if name in SCRIPTS else "other"


@deciding(requests=True)
def unrepetitive(
    items: Sequence[Any],
    seed: int,
    *,
    of: Text = "answer",
    n: Count = 20,
    most: Count = 20,
) -> list[Decision]:
    """Drops texts in which a run of ``n`` words comes more than so many times.

    The defaults are those of AM-DeepSeek-R1-Distilled (2025).

    Args:
        items: records or requests.
        seed: not used.
        of: which text is read.
        n: words of a run.
        most: so many times is not too often.
    """
    found = []
    for each in items:
        own = words(text_of(each, of))
        runs = Counter(tuple(own[i : i + n]) for i in range(len(own) - n + 1))
        often = max(runs.values(), default=0)
        reason = "" if often <= most else "repetition"
        found.append(Decision(each, not reason, float(often), reason))
    return found
