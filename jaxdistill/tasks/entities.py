"""Named entities of any type, asked for in conversations (Zhou et al., UniversalNER, ICLR 2024).

A teacher names all entities of a passage with their types. A student is asked about one type at a
time, also about types that the passage does not have.
"""

from __future__ import annotations

import functools
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from jaxdistill.evaluation.measuring import measuring
from jaxdistill.records import Decision, Message, Question, Record, Request, Written, made_from
from jaxdistill.records.reading import published_strings
from jaxdistill.records.requests import Sampling
from jaxdistill.records.steps import deciding, draw
from jaxdistill.settings import Count, Natural, Share
from jaxdistill.tasks.answered import Answered, scoring
from jaxdistill.tasks.passages import gazetteer, invented, tagged

SYSTEM = "A virtual assistant answers questions from a user based on the provided text."
"""What a student is told first; this line and the next two are published."""
READ = "I've read this text."
"""What a conversation says before the first question."""
QUESTION = "What describes {kind} in the text?"
"""Of one type."""
TASK, UNSEEN = "entities", "unseen"
"""Of requests about types that a student learns, and about those that it never saw."""

_TEXT = "Text: "
_TEACHER = "You find the entities that a text names, and say of each what it is."
_ASK = (
    "List every entity of the text, with its type. Answer by a JSON list of pairs, such as "
    '[["Danube", "river"]]; an entity may have several types, each in a pair of its own. If there '
    "is none, answer []."
)


# --- requests -----------------------------------------------------------------------------------


def entities(
    *,
    train: Count = 600,
    validation_passages: Natural = 4,
    test_passages: Natural = 24,
    unseen: Sequence[str] = (),
    system: str = SYSTEM,
    seed: Natural = 0,
    path: str = "",
) -> list[Request]:
    """A teacher is asked for all entities of passages; students about every type in others.

    Args:
        train: so many passages for the teacher.
        validation_passages: so many of which a student is asked about every type.
        test_passages: likewise.
        unseen: types that the student must not learn; the task of their questions is ``"unseen"``.
        system: what the student is told first; nothing if empty.
        seed: of the passages, and of who is in which set.
        path: a file of tagged passages, see :func:`tagged`; without one they are invented.

    Raises:
        ValueError: for a file of fewer passages, and an unseen type that nothing is of.

    Example:
        >>> found = entities(train=3, validation_passages=1, test_passages=0)
        >>> [m.content for m in found[-1].messages[2:]]
        ["I've read this text.", 'What describes southern river in the text?']
    """
    wanted = train + validation_passages + test_passages
    passages = tagged(path) if path else invented(wanted, seed)
    if len(passages) < wanted:
        raise ValueError(f"{path} has {len(passages)} passages, fewer than {wanted}")
    order = sorted(range(len(passages)), key=lambda number: draw(seed, f"entities/{number}"))
    kinds = sorted({kind for each in passages for _, kind in each.entities})
    if missing := sorted(set(unseen) - set(kinds)):
        raise ValueError(f"unseen type {missing[0]!r} is none of {', '.join(kinds)}")
    found = []
    for place, number in enumerate(order[:wanted]):
        passage, source = passages[number], f"entities/{number:05d}"
        if place < train:
            found.append(request(passage.text, source, passage.entities, system=system))
            continue
        split = "validation" if place < train + validation_passages else "test"
        begun = beginning(passage.text, system)
        for kind in kinds:
            found.append(
                Request(
                    (*begun, Message("user", QUESTION.format(kind=kind))),
                    f"{source}/{kind}",
                    reference=answer_of(passage.of(kind)),
                    task=UNSEEN if kind in unseen else TASK,
                    split=split,
                )
            )
    return found


def request(
    text: str,
    source: str,
    known: Sequence[tuple[str, str]] | None = None,
    *,
    system: str = SYSTEM,
) -> Request:
    """A teacher is asked for all entities of a passage.

    Args:
        text: the passage.
        source: where it comes from; no two passages have the same.
        known: its entities and their types, which no teacher sees.
        system: what the student is told first.

    Example:
        >>> request("The Danube is long.", "a/1").messages[-1].content.splitlines()[-1]
        'Text: The Danube is long.'
    """
    right = None if known is None else json.dumps(known, ensure_ascii=False)
    return Request(
        (Message("system", _TEACHER), Message("user", f"{_ASK}\n\n{_TEXT}{text}")),
        source,
        beginning(text, system),
        sampling=Sampling(temperature=0.0),
        reference=right,
        task=TASK,
        meta={"passage": source},
    )


def beginning(text: str, system: str = SYSTEM) -> tuple[Message, ...]:
    """What a student's conversation about a passage begins with."""
    told = (Message("system", system),) if system else ()
    return (*told, Message("user", _TEXT + text), Message("assistant", READ))


def answer_of(names: Iterable[str]) -> str:
    """What a student answers: a JSON list, each entity once.

    Example:
        >>> answer_of(["Cluj", "Iași", "Cluj"])
        '["Cluj", "Iași"]'
    """
    return json.dumps(list(dict.fromkeys(names)), ensure_ascii=False)


# --- steps --------------------------------------------------------------------------------------


@deciding(gives=("questions of one type",))
def asked_by_type(
    items: Sequence[Record], seed: int, *, without: Sequence[str] = ()
) -> list[Decision]:
    """Reads what a teacher named, and makes a record of each type that it named: a question about
    this type, behind what the student's conversation begins with.

    Answers that are no JSON list of pairs are dropped, and what is not written in the passage is
    left out.

    Args:
        items: records of :func:`entities`.
        seed: not used.
        without: types that no record is made of.
    """
    found = []
    for each in items:
        pairs = pairs_in(each.raw)
        if pairs is None:
            found.append(Decision(each, False, reason="no list of pairs"))
            continue
        text = each.prompt[-2].content
        by_kind: dict[str, list[str]] = {}
        for name, kind in pairs:
            if name in text and kind not in without:
                by_kind.setdefault(kind, []).append(name)
        reason = "asked by type" if by_kind else "no entities"
        found.append(Decision(each, False, reason=reason))
        for number, (kind, names) in enumerate(sorted(by_kind.items())):
            said, asked = answer_of(names), Message("user", QUESTION.format(kind=kind))
            made = made_from(
                [each],
                "asked_by_type",
                number,
                messages=(*each.prompt, asked, Message("assistant", said, learn=True)),
                raw=said,
                answer=said,
                reference=None,
                meta={**each.meta, "type": kind},
            )
            found.append(Decision(made))
    return found


def pairs_in(text: str) -> list[tuple[str, str]] | None:
    """Entities and their types in an answer of a teacher, the types in lower case; None if it is no
    JSON list of pairs.

    Example:
        >>> pairs_in('[["Dunărea", "River"]]'), pairs_in("There are none.")
        ([('Dunărea', 'river')], None)
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    for each in found:
        if not (isinstance(each, list) and [type(part) for part in each] == [str, str]):
            return None
    return [(name.strip(), " ".join(kind.lower().split())) for name, kind in found]


@deciding(needs=("questions of one type",))
def joined(items: Sequence[Record], seed: int, *, most: Count = 8) -> list[Decision]:
    """Joins the questions about a passage to one conversation, in an order of chance.

    Args:
        items: records that ask one question, negatives among them.
        seed: of the order.
        most: questions of a conversation; others about the passage begin another one.
    """
    passages: dict[str, list[Record]] = {}
    found = []
    for each in items:
        passages.setdefault(each.meta["passage"], []).append(each)
        found.append(Decision(each, False, reason="in a conversation"))
    for members in passages.values():
        members = sorted(members, key=lambda each: (draw(seed, each.id), each.id))
        for number, start in enumerate(range(0, len(members), most)):
            own = members[start : start + most]
            messages = own[0].messages[:-2] + tuple(m for each in own for m in each.messages[-2:])
            meta = {"passage": own[0].meta["passage"], "types": [e.meta["type"] for e in own]}
            found.append(Decision(made_from(own, "joined", number, messages=messages, meta=meta)))
    return found


def questions_in(record: Record) -> Iterator[tuple[str, list[str]]]:
    """The types that a record asks about, and what it answers."""
    for asked, said in zip(record.messages, record.messages[1:], strict=False):
        if said.learn and (match := _ASKED.fullmatch(asked.content)):
            yield match[1], json.loads(said.content)


_ASKED = re.compile(re.escape(QUESTION).replace(re.escape("{kind}"), "(.+)"), re.S)


@functools.partial(measuring, ("questions", "negatives", "right", "found"))
def entity_truth(written: Written, requests: Mapping[str, Request]) -> dict[str, float]:
    """How good written records are, by what is known of their passages: how many ``questions`` they
    ask, the share of ``negatives`` among these, the share of answered entities that is ``right``,
    and that of all entities (of types that are asked about anywhere) that was ``found``.
    """
    known = {
        each.meta["passage"]: Counter(map(tuple, json.loads(each.reference)))
        for each in requests.values()
        if each.reference is not None
    }
    asked = empty = right = given = 0
    kinds = set()
    for record in written.records():
        truth = known[record.meta["passage"]]
        for kind, names in questions_in(record):
            asked, empty, given = asked + 1, empty + (not names), given + len(names)
            right += sum((name, kind) in truth for name in names)
            if names:
                kinds.add(kind)
    there = sum(sum(kind in kinds for _, kind in truth) for truth in known.values())
    return {
        "questions": float(asked),
        "negatives": empty / max(asked, 1),
        "right": right / max(given, 1),
        "found": right / max(there, 1),
    }


# --- the score ----------------------------------------------------------------------------------


@scoring("f1", "precision", "recall", "absent", "unseen_f1")
def set_f1(answers: Sequence[Answered]) -> dict[str, float]:
    """F1 of sets of strings, as it was published: summed over questions, each entity of an answer
    once, wherever it stands; an answer that is no list has none.

    Also ``absent``, the share of questions about types that a text does not have that were answered
    by an empty list or none, and ``unseen_f1`` of the questions of task ``"unseen"``, which the
    others leave out. Of nothing each is 0.

    Example:
        >>> found = set_f1([Answered("", '["Rome", "Paris"]', '["Rome"]')])
        >>> round(found["f1"], 4), round(found["precision"], 4)
        (0.6667, 0.5)
    """
    seen = [each for each in answers if each.task != UNSEEN]
    precision, recall, f1 = _f1(seen)
    empty = [each for each in seen if not published_strings(each.reference)]
    said = [each for each in empty if not published_strings(each.answer)]
    return {
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "absent": len(said) / max(len(empty), 1),
        "unseen_f1": _f1([each for each in answers if each.task == UNSEEN])[2],
    }


def _f1(answers: Sequence[Answered]) -> tuple[float, float, float]:
    right = given = wanted = 0
    for each in answers:
        ours, theirs = published_strings(each.answer), published_strings(each.reference)
        right += sum(name in theirs for name in ours)
        given, wanted = given + len(ours), wanted + len(theirs)
    precision, recall = right / (given + 1e-10), right / (wanted + 1e-10)
    return precision, recall, 2 * precision * recall / (precision + recall + 1e-10)


# --- the script ---------------------------------------------------------------------------------


def name_entities(
    question: Question,
    *,
    missed: Share = 0.05,
    wrong: Share = 0.05,
    broken: Share = 0.02,
    path: str = "",
) -> str:
    """A teacher that knows the passages, and errs.

    Args:
        question: asks for all entities of a passage.
        missed: the share of pairs that it leaves out.
        wrong: the share of pairs to which it gives a type of others.
        broken: the share of answers that are sentences in place of a list.
        path: of tagged passages, where they are not invented.

    Raises:
        ValueError: for a passage that it does not know.
    """
    text = question.messages[-1].content.rpartition(_TEXT)[2]
    drawn = random.Random(question.seed)
    known = _truth(text, path)
    kinds = _kinds(path)
    if drawn.random() < broken:
        return f"The text names {len(known)} things."
    said = []
    for name, kind in known:
        if drawn.random() >= missed:
            said.append([name, drawn.choice(kinds) if drawn.random() < wrong else kind])
    return json.dumps(said, ensure_ascii=False)


def _truth(text: str, path: str) -> Sequence[tuple[str, str]]:
    if not path:
        found = dict.fromkeys(re.findall(r"[A-Z]\w+", text))
        return [(name, kind) for name in found for kind in gazetteer().get(name, ())]
    if text not in (by_text := _by_text(path)):
        raise ValueError(f"{path} has no passage {text[:60]!r}")
    return by_text[text]


@functools.lru_cache(4)
def _by_text(path: str) -> dict[str, tuple[tuple[str, str], ...]]:
    return {each.text: each.entities for each in tagged(path)}


@functools.lru_cache(4)
def _kinds(path: str) -> list[str]:
    if not path:
        return sorted({kind for kinds in gazetteer().values() for kind in kinds})
    return sorted({kind for each in tagged(path) for _, kind in each.entities})
