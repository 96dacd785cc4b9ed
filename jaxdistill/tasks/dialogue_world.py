"""A world of dialogues in two languages, with a translator that errs.

Somebody looks for places of three kinds: says what they should be like, changes their mind at
times, is offered one, asks for its address. The second language has a word for each word of the
first and says sentences from their end. What is said is written as text with *entities*, the values
that dialogue states and acts are made of, in braces; :func:`said` gives it in either language.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxdistill.records.requests import Question
from jaxdistill.settings import Share

_AREAS = ("north", "south", "east", "west")
_PRICES = ("cheap", "moderate", "expensive")
SLOTS: dict[str, dict[str, tuple[str, ...]]] = {
    "restaurant": {
        "food": ("italian", "chinese", "indian", "thai"),
        "area": _AREAS,
        "price": _PRICES,
    },
    "hotel": {
        "kind": ("hostel", "guesthouse", "resort", "inn"),
        "area": _AREAS,
        "price": _PRICES,
    },
    "sight": {
        "theme": ("museum", "park", "theatre", "zoo"),
        "area": _AREAS,
        "price": _PRICES,
    },
}
"""Kinds of places, what they may be like, and the values of that."""
NAMES = ("lotus", "harbour", "willow", "phoenix", "amber", "falcon", "maple", "orchid")
"""Of places."""
STREETS = (
    "broadway", "highgate", "riverside", "millroad", "kingsway", "parkside", "eastgate", "oldtown",
)  # fmt: skip
"""Where they are."""
_PHRASES = {
    "food": "with {} food", "kind": "as a {}", "theme": "like a {}",
    "area": "in the {}", "price": "at {} prices",
}  # fmt: skip
_FIRST = ("i need a {} {} {}", "please find a {} {} {}", "is there a {} {} {}")
_MORE = ("{} please", "i want it {}", "best {}")
_CHANGED = ("or rather {}", "no , better {}")
_WHERE = ("what is the address", "where is it", "how do i get there")
_ASKS = ("which {} do you want", "what {} would you like")
_OFFERS = ("how about {}", "i suggest {}", "you could try {}")
_TELLS = ("it is at {}", "you find it at {}")

State = dict[str, dict[str, str]]
"""What a user wishes: by kind of place, the value of each slot."""


class Turn(NamedTuple):
    """What a user and the agent say in turn.

    Attributes:
        user: with entities in braces.
        agent: the same of the answer.
        state: what is wanted so far, by kind of place and slot.
        act: of the agent: kind of place, what it does, slots with values or without.
        known: the place that the agent has found, by slot.
    """

    user: str
    agent: str
    state: State
    act: tuple[str, str, dict[str, str]]
    known: dict[str, str]


# --- dialogues ---------------------------------------------------------------------------------


def drawn(draw: random.Random) -> list[Turn]:
    """The turns of a dialogue about one or two kinds of places.

    Args:
        draw: what it is drawn from.
    """
    turns: list[Turn] = []
    state: State = {}
    for kind in draw.sample(list(SLOTS), draw.choice((1, 2))):
        wanted = {slot: draw.choice(values) for slot, values in SLOTS[kind].items()}
        *first, last = draw.sample(list(wanted), 3)
        state = {**state, kind: {slot: wanted[slot] for slot in first}}
        asked = draw.choice(_FIRST).format(kind, *(_phrase(s, wanted[s]) for s in first))
        answer = draw.choice(_ASKS).format(last)
        turns.append(Turn(asked, answer, state, (kind, "ask", {last: ""}), {}))
        said = draw.choice(_MORE).format(_phrase(last, wanted[last]))
        if draw.random() < 0.4:
            slot = draw.choice(first)
            wanted[slot] = draw.choice([v for v in SLOTS[kind][slot] if v != wanted[slot]])
            said += " " + draw.choice(_CHANGED).format(_phrase(slot, wanted[slot]))
        state = {**state, kind: {slot: wanted[slot] for slot in SLOTS[kind]}}
        known = place(kind, wanted) or {}
        name, street = known["name"], known["address"]
        answer = draw.choice(_OFFERS).format(f"{{{name}}}")
        turns.append(Turn(said, answer, state, (kind, "offer", {"name": name}), known))
        answer = draw.choice(_TELLS).format(f"{{{street}}}")
        act = (kind, "tell", {"address": street})
        turns.append(Turn(draw.choice(_WHERE), answer, state, act, known))
    return turns


def _phrase(slot: str, value: str) -> str:
    return _PHRASES[slot].format(f"{{{value}}}")


def place(kind: str, wanted: Mapping[str, str]) -> dict[str, str] | None:
    """The one place that is as somebody wants it: its name and address. None where something is not
    said, or no value of its slot.

    Args:
        kind: of place.
        wanted: the values of all of its slots.

    Example:
        >>> sorted(place("hotel", {"kind": "inn", "area": "north", "price": "cheap"}))
        ['address', 'name']
        >>> place("hotel", {"kind": "inn"}) is None
        True
    """
    slots = SLOTS.get(kind, {})
    if not slots or any(wanted.get(slot) not in values for slot, values in slots.items()):
        return None
    code = _code(" ".join((kind, *(wanted[slot] for slot in slots))))
    return {"name": NAMES[code % len(NAMES)], "address": STREETS[code // 97 % len(STREETS)]}


def foreign_place(kind: str, wanted: Mapping[str, str]) -> dict[str, str] | None:
    """:func:`place` for what is said in the second language, and in its words."""
    back = {foreign_word(each): each for each in every_entity()}
    found = place(kind, {slot: back.get(value, "") for slot, value in wanted.items()})
    return found and {slot: foreign_word(value) for slot, value in found.items()}


# --- languages ---------------------------------------------------------------------------------


def said(text: str, foreign: bool, marked: bool = False) -> str:
    """A text with entities in braces as it is said.

    Args:
        text: the words, in the first language.
        foreign: whether it is said in the second one.
        marked: whether entities stand in quotation marks.

    Example:
        >>> said("in the {north}", False), said("in the {north}", False, marked=True)
        ('in the north', 'in the "north"')
        >>> len(said("in the {north}", True).split())
        3
    """
    words = text.split()
    if foreign:
        words = [_braced(word, foreign_word) for word in reversed(words)]
    return re.sub(r"\{(\w+)\}", r'"\1"' if marked else r"\1", " ".join(words))


def entities(text: str) -> list[str]:
    """The entities of a text, in order.

    Example:
        >>> entities("with {thai} food in the {north}")
        ['thai', 'north']
    """
    return re.findall(r"\{(\w+)\}", text)


@functools.cache
def foreign_word(word: str) -> str:
    """A word of the first language in the second; punctuation stays.

    Example:
        >>> foreign_word("north") == foreign_word("north") != foreign_word("south")
        True
        >>> foreign_word(",")
        ','
    """
    if not word.isalpha():
        return word
    code, found = _code(word), ""
    for _ in range(3):
        found += "bdfgklmnprstvz"[code % 14] + "aeiou"[code // 14 % 5]
        code //= 70
    return found


def _braced(word: str, change: Any) -> str:
    inner = word.strip("{}")
    return word.replace(inner, change(inner))


def _code(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def every_word() -> list[str]:
    """All words of the first language."""
    texts = [*SLOTS, *NAMES, *STREETS, *_PHRASES, *_PHRASES.values(), *_WHERE]
    texts += [*_FIRST, *_MORE, *_CHANGED, *_ASKS, *_OFFERS, *_TELLS]
    texts += [v for slots in SLOTS.values() for values in slots.values() for v in values]
    return sorted({word for text in texts for word in text.split() if word.isalpha()})


@functools.cache
def every_entity() -> dict[str, str]:
    """All entities, and what they are values of."""
    slots = {slot: values for own in SLOTS.values() for slot, values in own.items()}
    kinds = {**slots, "name": NAMES, "address": STREETS}
    return {value: kind for kind, values in kinds.items() for value in values}


# --- the translator ----------------------------------------------------------------------------


def translator(
    question: Question,
    *,
    changed: Share = 0.3,
    lost: Share = 0.05,
    wrong: Share = 0.1,
) -> str:
    """Says in the second language what it is asked to, with errors.

    Args:
        question: whose last message is the text, with quotation marks around entities or without.
        changed: how often an entity becomes another one, or a word that means the same but is the
            value of nothing.
        lost: how often it is left out.
        wrong: how often something else altogether is said.
    """
    draw = random.Random(question.seed)
    text = question.messages[-1].content
    alone = len(text.split()) == 1
    if not alone and draw.random() < wrong:
        turn = draw.choice(drawn(draw))
        return said(draw.choice((turn.user, turn.agent)), True, '"' in text)
    kinds = every_entity()
    found = []
    for word in reversed(text.split()):
        inner = word.strip('"')
        kind = kinds.get(inner, "")
        if kind and not alone and draw.random() < lost:
            continue
        new = foreign_word(inner)
        if kind and draw.random() < changed:
            others = [foreign_word(v) for v, own in kinds.items() if own == kind and v != inner]
            new = draw.choice((draw.choice(others), f"{new}ri"))
        found.append(word.replace(inner, new))
    return " ".join(found)
