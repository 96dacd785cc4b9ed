"""Passages and what they name: of files, and of an invented world."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jaxdistill.data.documents import json_rows


class Passage(NamedTuple):
    """A text and what it names.

    Attributes:
        text: the passage.
        entities: pairs of an entity, as the text writes it, and a type.
    """

    text: str
    entities: tuple[tuple[str, str], ...]

    def of(self, kind: str) -> list[str]:
        """Its entities of one type, in the order of the text."""
        return [name for name, its in self.entities if its == kind]


@functools.lru_cache(4)
def tagged(path: str) -> list[Passage]:
    """Passages of a file of JSON lines with ``tokens`` and ``tags`` (``B-PERSON``, ``I-PERSON``,
    ``O``), such as RONEC's.

    Raises:
        ValueError: for a line without them, and tags that are as many as the tokens or no tags.
    """
    found = []
    for number, row in json_rows(Path(path)):
        where = f"line {number} of {path}"
        try:
            tokens, tags = list(map(str, row["tokens"])), list(map(str, row["tags"]))
        except (TypeError, KeyError):
            raise ValueError(f"{where} needs 'tokens' and 'tags'") from None
        if len(tokens) != len(tags) or not all(re.fullmatch(r"O|[BI]-.+", tag) for tag in tags):
            raise ValueError(f"{where}: tags are O, B-<type> or I-<type>, one for each token")
        named: list[tuple[list[str], str]] = []
        open_ = ""
        for token, tag in zip(tokens, tags, strict=True):
            kind = tag[2:].replace("_", " ").lower()
            if tag[0] == "I" and kind == open_:
                named[-1][0].append(token)
            elif kind:
                named.append(([token], kind))
            open_ = kind
        pairs = tuple((" ".join(parts), kind) for parts, kind in named)
        found.append(Passage(" ".join(tokens), pairs))
    return found


ORIGINS = ("northern", "southern", "eastern")
"""Where names of the invented world come from."""
_CLAUSES = {
    "city": ("a new road leads to {}", "the market of {} opens early", "they moved to {}"),
    "river": ("boats drift down {}", "the bridge over {} is old", "in spring {} is high"),
    "painter": ("{} paints the sea", "a portrait by {} was sold", "they met {} again"),
    "ship": ("{} left the harbour", "the crew of {} sings", "a storm damaged {}"),
}
_JOINTS = (" and ", " while ", ", and later ", " because ")
_SYLLABLES = (("Bre", "Dor", "Hal", "Kel", "Lan", "Mir"), ("nov", "tar", "sin", "dal"))
_ENDINGS = {"northern": ("vik", "gard"), "southern": ("ara", "ello"), "eastern": ("ov", "anka")}
_EACH = 4


@functools.cache
def gazetteer() -> Mapping[str, tuple[str, ...]]:
    """The names of the invented world, each with its types: its category, ``"<origin> name"``, and
    both, such as ``"northern river"``."""
    found = {}
    for origin in ORIGINS:
        endings = _ENDINGS[origin]
        own = [a + b + c for a in _SYLLABLES[0] for b in _SYLLABLES[1] for c in endings]
        for number, name in enumerate(own[: _EACH * len(_CLAUSES)]):
            kind = list(_CLAUSES)[number % len(_CLAUSES)]
            found[name] = (kind, f"{origin} name", f"{origin} {kind}")
    return found


def invented(count: int, seed: int) -> list[Passage]:
    """So many passages of two or three clauses, each of which names something.

    Example:
        >>> passage = invented(1, 0)[0]
        >>> sorted({kind for _, kind in passage.entities})[:2]
        ['eastern name', 'eastern ship']
    """
    by_kind: dict[str, list[str]] = {kind: [] for kind in _CLAUSES}
    for name, kinds in gazetteer().items():
        by_kind[kinds[0]].append(name)
    drawn = random.Random(f"entities {seed}")
    found: dict[str, Passage] = {}
    while len(found) < count:
        said, named = [], []
        for _ in range(drawn.choice((2, 3))):
            kind = drawn.choice(list(_CLAUSES))
            named.append(drawn.choice(by_kind[kind]))
            said.append(drawn.choice(_CLAUSES[kind]).format(named[-1]))
        text = f"Today {drawn.choice(_JOINTS).join(said)}."
        pairs = tuple((name, kind) for name in dict.fromkeys(named) for kind in gazetteer()[name])
        found.setdefault(text, Passage(text, pairs))
    return list(found.values())
