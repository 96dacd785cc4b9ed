"""Dialogues of one language as data of another: what translators are asked, and steps that make of
single translations what a student of dialogues learns from."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdistill._errors import unknown
from jaxdistill.data.documents import json_rows
from jaxdistill.records.nouns import Record, made_from
from jaxdistill.records.requests import Message, Request, Sampling
from jaxdistill.records.shards import Written
from jaxdistill.records.steps import Decision, deciding
from jaxdistill.records.texts import normal
from jaxdistill.settings import Count, Natural
from jaxdistill.tasks import dialogue_world as world
from jaxdistill.tasks.answered import scoring
from jaxdistill.tasks.dialogues import (
    History,
    Seen,
    act_prompt,
    act_text,
    changed,
    reply_prompt,
    state_prompt,
    state_text,
)

_MARKED = re.compile(r'"([^"]*)"')
ALIGNED = "entities that are aligned"
"""What :func:`aligned` gives."""

# --- requests ----------------------------------------------------------------------------------


def localised_dialogues(
    *,
    count: Count = 500,
    held_out: Count = 100,
    marked: bool = True,
    alternatives: Natural = 4,
    seed: Natural = 0,
) -> list[Request]:
    """Asks a teacher to translate dialogues of the world, a request for each thing that is said;
    held-out dialogues are in the second language.

    What is known of the dialogue stands in ``meta``, in the words of the second language. A
    held-out request is the first question about a dialogue, which its ``meta`` has whole; its
    ``reference`` is the last state and all acts.

    Args:
        count: dialogues to learn from.
        held_out: dialogues of each of validation and test.
        marked: whether entities stand in quotation marks, and are asked for alone besides.
        alternatives: how often each entity is asked for alone.
        seed: of the world.

    Example:
        >>> first = localised_dialogues(count=1, held_out=1)[0]
        >>> print(first.messages[-1].content)
        please find a sight like a "park" in the "north"
    """
    dialogues = _of_world(count, held_out, seed)
    return _requests(dialogues, "the second language", marked, alternatives, known=True)


def dialogues_of_file(
    *, path: str, language: str, marked: bool = True, alternatives: Natural = 4
) -> list[Request]:
    """Asks a teacher to translate dialogues of a file, as :func:`localised_dialogues`.

    Args:
        path: in JSON lines, a dialogue each: ``turns`` (see :mod:`jaxdistill.tasks.dialogues`) with
            entities in braces, ``values``, what each entity is in the other language, and
            ``split``, if it is held out; then its turns are in the other language.
        language: the other one, as teachers are told.
        marked: whether entities stand in quotation marks, and are asked for alone besides.
        alternatives: how often each entity is asked for alone.

    Raises:
        ValueError: without a file; for a line without what it needs, and an entity without its
            value, naming the line.
    """
    if not path:
        raise ValueError("there are no dialogues: --config.data.task.path=<file.jsonl>")
    return _requests(_of_file(path), language, marked, alternatives, known=False)


def _requests(
    dialogues: Iterator[tuple[str, str, Any, Any]],
    language: str,
    marked: bool,
    alternatives: int,
    known: bool,
) -> list[Request]:
    told = f"Translate into {language}."
    if marked:
        told += " What stands in quotation marks is a name or a value: keep the marks around it."
    found, values = [], {}
    for where, split, turns, own in dialogues:
        if split == "train":
            found += _utterances(told, marked, where, turns, own, known)
            values |= own
        else:
            found.append(_held_out(turns, where, split))
    if marked and alternatives:
        found += [_entity(told, *each, alternatives) for each in sorted(values.items())]
    return found


def _of_world(count: int, held_out: int, seed: int) -> Iterator[tuple[str, str, Any, Any]]:
    values = {each: world.foreign_word(each) for each in world.every_entity()}
    for split, size in (("train", count), ("validation", held_out), ("test", held_out)):
        for number in range(size):
            where = f"dialogues/{seed}/{split}/{number}"
            turns = [each._asdict() for each in world.drawn(random.Random(where))]
            if split != "train":
                turns = _in_values(turns, values, where)
                for turn in turns:
                    turn |= {who: world.said(turn[who], True) for who in ("user", "agent")}
            yield where, split, turns, values


def _of_file(path: str) -> Iterator[tuple[str, str, Any, Any]]:
    for number, row in json_rows(Path(path)):
        where = f"line {number} of {path}"
        turns, values = row.get("turns"), row.get("values", {})
        keys = ("user", "agent", "state", "act", "known")
        if not isinstance(turns, list) or not turns or not isinstance(values, dict):
            raise ValueError(f"{where}: a dialogue needs 'turns', and 'values' by entity")
        for turn in turns:
            if missing := [key for key in keys if key not in turn]:
                raise ValueError(f"{where}: a turn lacks {missing[0]!r}")
        yield where, row.get("split", "train"), turns, values


def _in_values(
    turns: Sequence[Mapping[str, Any]], values: Mapping[str, str], where: str
) -> list[dict[str, Any]]:
    """Turns whose states, acts and places are in the words of the second language."""

    def named(slots: Mapping[str, str]) -> dict[str, str]:
        return {slot: _value(v, values, where) if v else "" for slot, v in slots.items()}

    return [
        {
            **turn,
            "state": {kind: named(own) for kind, own in turn["state"].items()},
            "act": [*turn["act"][:2], named(turn["act"][2])],
            "known": named(turn["known"]),
        }
        for turn in turns
    ]


def _value(entity: str, values: Mapping[str, str], where: str) -> str:
    if entity not in values:
        raise ValueError(f"{where}: " + unknown("entity in 'values'", entity, values))
    return values[entity]


def _utterances(
    told: str,
    marked: bool,
    where: str,
    turns: Sequence[Mapping[str, Any]],
    values: Mapping[str, str],
    known: bool,
) -> Iterator[Request]:
    """A request for everything that is said, with what the agent knows then."""
    there = _in_values(turns, values, where)
    for number, (turn, own) in enumerate(zip(turns, there, strict=True)):
        meta = {
            "dialogue": where,
            "state": there[number - 1]["state"] if number else {},
            "after": own["state"],
            "acts": [act_text(*each["act"]) for each in there[:number]],
            "act": act_text(*own["act"]),
            "known": own["known"],
        }
        for place, who in ((2 * number, "user"), (2 * number + 1, "agent")):
            text = turn[who]
            named = [_value(each, values, where) for each in world.entities(text)]
            yield Request.of(
                world.said(text, False, marked),
                system=told,
                prompt=(Message("user", world.said(text, False)),),
                source=f"{where}/{place}",
                reference=world.said(text, True) if known else None,
                sampling=Sampling(temperature=0.2),
                task="dialogue",
                meta={**meta, "number": place, "speaker": who, "entities": named},
            )


def _entity(told: str, word: str, value: str, alternatives: int) -> Request:
    return Request.of(
        word,
        system=told,
        source=f"entity/{word}",
        reference=value,
        sampling=Sampling(n=alternatives),
        task="dialogue",
        meta={"speaker": "entity", "entities": [value]},
    )


def _held_out(turns: Sequence[Mapping[str, Any]], where: str, split: str) -> Request:
    first = Seen((turns[0]["user"],), {}, ())
    acts = [act_text(*each["act"]) for each in turns]
    return Request.of(
        state_prompt(first, "compact"),
        source=where,
        split=split,
        reference=" ; ".join((state_text(turns[-1]["state"]), *acts)),
        task="dialogue",
        meta={"dialogue": where, "turns": turns},
    )


# --- steps -------------------------------------------------------------------------------------


@deciding(gives=(ALIGNED,))
def aligned(items: Sequence[Record], seed: int) -> list[Decision]:
    """Puts the entities that were meant into a translation, where they stand in quotation marks.

    Which of the marked ones is which is found by a dictionary, made of the translations of entities
    alone that are among the records and then dropped; of what is left, one is told by being the
    last. Records whose entities are not all there, each once, are dropped.

    Args:
        items: records whose ``meta["entities"]`` has the entities as they should be, in any order;
            ``meta["speaker"]`` is ``"entity"`` where one was translated alone.
        seed: not used.

    Raises:
        ValueError: for records of anything else.
    """
    _refuse_strangers("aligned", items)
    known: dict[str, set[str]] = {}
    for each in items:
        if each.meta["speaker"] == "entity":
            known.setdefault(normal(each.answer), set()).update(each.meta["entities"])
    found = []
    for each in items:
        if each.meta["speaker"] == "entity":
            found.append(Decision(each, False, reason="an entity alone"))
            continue
        spans = _MARKED.findall(each.answer)
        wanted = list(each.meta["entities"])
        if len(spans) != len(wanted) or each.answer.count('"') % 2:
            found.append(Decision(each, False, reason="entities are not all there"))
            continue
        order = told_apart(spans, wanted, known)
        if order is None:
            found.append(Decision(each, False, reason="entities cannot be told apart"))
            continue
        names = iter(order)
        text = _MARKED.sub(lambda _, names=names: next(names), each.answer)
        found.append(Decision(dataclasses.replace(each, answer=text)))
    return found


def told_apart(
    spans: Sequence[str], wanted: Sequence[str], known: Mapping[str, set[str]]
) -> list[str] | None:
    """Which entity each marked span of a translation is, None where that cannot be told.

    Args:
        spans: as they were translated.
        wanted: the entities, as many.
        known: by the translation of an entity alone, which ones it may be.

    Example:
        >>> told_apart(["kalt", "Nord"], ["nord", "kühl"], {"nord": {"nord"}})
        ['kühl', 'nord']
        >>> told_apart(["x", "y"], ["nord", "kühl"], {}) is None
        True
    """
    left, found = list(wanted), [""] * len(spans)
    texts = [normal(each) for each in spans]
    for possible in (lambda text: {text}, lambda text: known.get(text, set())):
        for place, text in enumerate(texts):
            here = [each for each in set(left) if normal(each) in set(map(normal, possible(text)))]
            if not found[place] and len(here) == 1:
                found[place] = here[0]
                left.remove(here[0])
    open_ = [place for place, name in enumerate(found) if not name]
    if len(open_) > 1:
        return None
    for place in open_:
        found[place] = left.pop()
    return found


@deciding()
def localised(
    items: Sequence[Record], seed: int, *, history: History = "compact"
) -> list[Decision]:
    """Makes of translations what a student of dialogues learns: how the state changes and what the
    agent does from what a user says, a reply from what the agent says.

    What a student is shown of the dialogue so far is put together of the translations; a full
    history needs all of them, and where one is missing the dialogue ends for the student. The
    translation itself stays in ``meta["said"]``.

    Args:
        items: records of :func:`localised_dialogues`.
        seed: not used.
        history: what stands for what was said before.

    Raises:
        ValueError: for records of anything else.
    """
    _refuse_strangers("localised", items)
    there: dict[tuple[str, int], str] = {}
    for each in items:
        if each.meta["speaker"] != "entity":
            there[each.meta["dialogue"], each.meta["number"]] = each.answer
    found = []
    for each in items:
        if each.meta["speaker"] == "entity":
            found.append(Decision(each, False, reason="an entity alone"))
        else:
            found += _learnt(each, there, history)
    return found


def _refuse_strangers(step: str, items: Sequence[Record]) -> None:
    for each in items:
        if "speaker" not in each.meta:
            raise ValueError(
                f"{step}: record {each.id} says in its meta no 'speaker': it answers no request of "
                "'localised_dialogues'"
            )


def _learnt(
    record: Record, there: Mapping[tuple[str, int], str], history: History
) -> list[Decision]:
    meta, number = record.meta, record.meta["number"]
    record = dataclasses.replace(record, meta={**meta, "said": record.answer})
    if meta["speaker"] == "agent":
        user = there.get((meta["dialogue"], number - 1))
        if user is None:
            return [Decision(record, False, reason="what it answers is missing")]
        return [Decision(_asked(record, reply_prompt(meta["act"], user), record.answer))]
    said = [there.get((meta["dialogue"], place)) for place in range(number + 1)]
    if history == "full" and None in said:
        return [Decision(record, False, reason="a part of the history is missing")]
    whole = tuple(each or "" for each in said)
    seen = Seen(whole, meta["state"], tuple(meta["acts"]))
    after = meta["after"]
    state = after if history == "full" else changed(meta["state"], after)
    act = made_from([record], "localised")
    asked = act_prompt(seen, after, meta["known"], history)
    return [
        Decision(_asked(record, state_prompt(seen, history), state_text(state))),
        Decision(_asked(act, asked, meta["act"]), reason="act"),
    ]


def _asked(record: Record, prompt: str, answer: str) -> Record:
    messages = (Message("user", prompt), Message("assistant", answer, learn=True))
    return dataclasses.replace(record, messages=messages, answer=answer)


@scoring("precision", "right")
def translations(written: Written, requests: Mapping[str, Request]) -> dict[str, float]:
    """How many of the translations that were kept are right.

    Args:
        written: records with the translation in ``meta["said"]``.
        requests: those they answer, by id, with the right translation as reference.

    Returns:
        ``precision``, the share of right ones among those kept; ``right``, how many these are among
        all that were asked for.
    """
    kept: dict[str, Any] = {}
    for each in written.records():
        kept[each.provenance.request] = each.meta["said"]
    right = sum(normal(said) == normal(requests[key].reference or "") for key, said in kept.items())
    asked = sum(each.meta.get("speaker") != "entity" for each in requests.values())
    return {"precision": right / len(kept), "right": right / asked}
