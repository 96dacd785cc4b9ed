"""Commonsense knowledge, negative too, as a teacher tells it (Snowman, 2023).

A teacher finishes sentences about things: triples of a head, a relation and a tail. It errs more
often about what is *not* so; therefore it, or another, is asked again whether each negative triple
holds. A student learns to write tails: ``head relation [GEN]``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdistill.data.documents import json_rows
from jaxdistill.records import (
    Answers,
    Decision,
    Message,
    Question,
    Record,
    Request,
    Teacher,
    Written,
)
from jaxdistill.records.judging import Asked
from jaxdistill.records.reading import yes
from jaxdistill.records.requests import Sampling
from jaxdistill.records.steps import deciding, draw
from jaxdistill.settings import Count, Fraction, Natural, Share
from jaxdistill.tasks.answered import Answered, scoring
from jaxdistill.tasks.things import KINDS, tails, truth

POSITIVE, NEGATIVE = "positive", "negative"
"""The polarity of a relation: the task of its requests."""


class Relation(NamedTuple):
    """What a triple says.

    Attributes:
        sentence: with ``{head}`` in it, up to the tail.
        about: what of a thing it is about.
        polarity: ``"positive"`` or ``"negative"``.
    """

    sentence: str
    about: str
    polarity: str


RELATIONS = {
    "AtPlace": Relation("a {head} is found in", "place", POSITIVE),
    "NotAtPlace": Relation("a {head} is not found in", "place", NEGATIVE),
    "Can": Relation("a {head} can", "act", POSITIVE),
    "CanNot": Relation("a {head} cannot", "act", NEGATIVE),
    "Has": Relation("a {head} has", "part", POSITIVE),
    "HasNot": Relation("a {head} does not have", "part", NEGATIVE),
}
"""By name."""

_ASK = "Finish the sentence by a few words, so that it says what everybody knows.\n\n{shown}{begun}"
_SHOWN = {
    POSITIVE: "a candle can burn\n",
    NEGATIVE: "a candle cannot swim\na glove does not have windows\n",
}
_AGAIN = (
    "Some sentences say truly that something is not so, some wrongly.\n\n"
    "a candle cannot swim: yes\na candle cannot burn: no\na glove does not have fingers: no\n"
    "a glove does not have windows: yes\n\nIs this sentence right? Answer yes or no.\n{said}"
)
_GEN = "[GEN]"


# --- requests -----------------------------------------------------------------------------------


def commonsense(
    *,
    samples: Count = 4,
    held_out: Fraction = 0.25,
    temperature: Share = 1.0,
    seed: Natural = 0,
    path: str = "",
) -> list[Request]:
    """A teacher is asked for the tails of things and relations; students about those that are held
    out, of which every right tail is known.

    Args:
        samples: answers to each.
        held_out: the share of pairs of a thing and a relation that a student is tested on; a tenth
            of as many are for validation. None where things are read from a file.
        temperature: at which the teacher answers.
        seed: says which are held out.
        path: a file of things, JSON lines with ``"head"``; without one they are those of a small
            world. :func:`jaxdistill.records.expand` writes things.

    Example:
        >>> found = commonsense()
        >>> found[0].messages[-1].content.splitlines()[-1], found[0].prompt[0].content
        ('a robin is found in', 'robin AtPlace [GEN]')
    """
    sampling = Sampling(temperature=temperature, n=samples, max_tokens=16, stop=("\n",))
    found = []
    for head in _heads(path):
        for name, relation in RELATIONS.items():
            source = f"{head}/{name}"
            place = draw(seed, source)
            test = not path and place < held_out
            split = "test" if test else "train"
            if not path and held_out <= place < 1.1 * held_out:
                split = "validation"
            asked = _ASK.format(
                shown=_SHOWN[relation.polarity], begun=relation.sentence.format(head=head)
            )
            right = None if path else json.dumps(right_tails(head, name))
            found.append(
                Request.of(
                    asked,
                    source=source,
                    prompt=(Message("user", f"{head} {name} {_GEN}"),),
                    sampling=sampling,
                    reference=right,
                    task=relation.polarity,
                    split=split,
                    meta={"head": head, "relation": name},
                )
            )
    return found


def _heads(path: str) -> list[str]:
    if not path:
        return [head for heads, _ in KINDS.values() for head in heads]
    found = []
    for number, row in json_rows(Path(path)):
        head = row.get("head") if isinstance(row, dict) else None
        if not isinstance(head, str) or not head.strip():
            raise ValueError(f"line {number} of {path} needs a text 'head'")
        found.append(" ".join(head.split()))
    return list(dict.fromkeys(found))


def right_tails(head: str, relation: str) -> list[str]:
    """What is right of a thing of the small world.

    Example:
        >>> right_tails("robin", "Can"), "swim" in right_tails("robin", "CanNot")
        (['fly', 'sing'], True)
    """
    about, polarity = RELATIONS[relation][1:]
    own = truth(head)[about]
    if polarity == POSITIVE:
        return list(own)
    return [each for each in tails(about) if each not in own]


# --- asking again -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Critic:
    """Who is asked again.

    Attributes:
        teacher: its name should not be that of who wrote, unless it judges itself.
        answers: where its answers are kept.
    """

    teacher: Teacher
    answers: Answers = dataclasses.field(default_factory=Answers)

    def described(self) -> dict[str, Any]:
        """Who it is, for the manifest."""
        return {"critic": self.teacher.name, "revision": self.teacher.revision}


def _odd(said: Mapping[str, Any]) -> str:
    return "" if said["votes"] % 2 else f"votes={said['votes']} can be equal: take an odd number"


@deciding(gives=("score valid",), check=_odd)
def confirmed(
    items: Sequence[Record], seed: int, *, critic: Critic, votes: Count = 1
) -> list[Decision]:
    """Asks a critic whether each negative triple holds, and keeps those of which most votes say so.

    Positive ones stay as they are. The share of votes is the score ``valid``.

    Args:
        items: records of :func:`commonsense`.
        seed: of the votes.
        critic: who is asked, with examples of right and wrong sentences.
        votes: how often, an odd number.
    """
    sampling = Sampling(temperature=1.0, n=votes, max_tokens=4, seed=seed % 2**31)

    def question(record: Record) -> Request:
        said = f"{_begun(record)} {record.answer.strip()}"
        return Request.of(_AGAIN.format(said=said), source=record.id, sampling=sampling)

    judge = Asked(critic.teacher, question, yes, critic.answers)
    negative = [each for each in items if each.task == NEGATIVE]
    shares = dict(zip((each.id for each in negative), judge(negative), strict=True))
    found = []
    for each in items:
        share = shares.get(each.id, 1.0)
        if share is None:
            found.append(Decision(each, False, reason="neither yes nor no"))
            continue
        scored = dataclasses.replace(each, scores={**each.scores, "valid": share})
        found.append(Decision(scored, share > 0.5, share, "" if share > 0.5 else "not confirmed"))
    return found


def _begun(record: Record) -> str:
    return RELATIONS[record.meta["relation"]].sentence.format(head=record.meta["head"])


def stays(votes: int, error: float) -> float:
    """The probability that a wrong record stays, where most of so many independent votes decide,
    each of which errs with probability ``error``; of three votes 3e²(1 - e) + e³. A right one stays
    with probability ``1 - stays(votes, error)``, for an odd number of votes.

    Example:
        >>> round(stays(3, 0.1), 6), stays(1, 0.1)
        (0.028, 0.1)
    """
    most = range(votes // 2 + 1, votes + 1)
    return sum(math.comb(votes, k) * error**k * (1 - error) ** (votes - k) for k in most)


def accepted_share(share: float, votes: int, error: float) -> float:
    """The share of right records among those that stay, by the closed form.

    Args:
        share: of right ones before.
        votes: an odd number.
        error: of a vote.

    Example:
        >>> round(accepted_share(0.7, 3, 0.1), 4)
        0.9878
    """
    right, wrong = share * (1 - stays(votes, error)), (1 - share) * stays(votes, error)
    return right / (right + wrong)


# --- what is measured ---------------------------------------------------------------------------


@scoring("accepted", "before", "expected", "off", "recall", "positive")
def acceptance(
    written: Written, requests: Mapping[str, Request], *, votes: Natural = 0, error: Share = 0.0
) -> dict[str, float]:
    """The share of right ones among the negative triples that were kept (``accepted``), and among
    all that a critic was asked about (``before``); what the closed form makes of the latter
    (``expected``), and how far the former is ``off``; the share of right ones that stayed
    (``recall``); and that of right ones among ``positive`` triples.

    Args:
        written: the records.
        requests: what was asked.
        votes: how often a critic was asked about each; 0 if none was.
        error: of a vote.
    """
    kept = list(written.records())
    asked = [
        each.item
        for each in written.dropped()
        if each.verdict.step == "confirmed" and isinstance(each.item, Record)
    ]
    negative = [_is_right(each) for each in kept if each.task == NEGATIVE]
    positive = [_is_right(each) for each in kept if each.task == POSITIVE]
    before = negative + [_is_right(each) for each in asked]
    share = sum(before) / max(len(before), 1)
    accepted = sum(negative) / max(len(negative), 1)
    expected = accepted_share(share, votes, error) if votes else share
    return {
        "accepted": accepted,
        "before": share,
        "expected": expected,
        "off": abs(accepted - expected),
        "recall": sum(negative) / max(sum(before), 1),
        "positive": sum(positive) / max(len(positive), 1),
    }


def _is_right(record: Record) -> bool:
    return record.answer.strip() in json.loads(record.reference or "[]")


@scoring("right", "negative", "positive")
def right_share(answers: Sequence[Answered]) -> dict[str, float]:
    """The share of tails that are right: of all, of negative relations, and of positive ones. The
    reference is a JSON list of all right tails.

    Example:
        >>> right_share([Answered("", " fly", '["fly", "sing"]', "positive")])["right"]
        1.0
    """
    by_task: dict[str, list[bool]] = {"right": [], NEGATIVE: [], POSITIVE: []}
    for each in answers:
        right = " ".join(each.answer.split()) in json.loads(each.reference)
        by_task["right"].append(right)
        by_task[each.task].append(right)
    return {name: sum(own) / max(len(own), 1) for name, own in by_task.items()}


# --- scripts ------------------------------------------------------------------------------------


def tell_tails(question: Question, *, wrong: Share = 0.1, wrong_negative: Share = 0.3) -> str:
    """A teacher that knows the small world, and errs more often about what is not so: then it says
    what is.

    Args:
        question: of :func:`commonsense`.
        wrong: the share of wrong positive tails.
        wrong_negative: of wrong negative ones.
    """
    head, name, _ = _read(question.messages[-1].content.splitlines()[-1])
    drawn = random.Random(question.seed)
    right = right_tails(head, name)
    others = [each for each in tails(RELATIONS[name].about) if each not in right]
    errors = wrong_negative if RELATIONS[name].polarity == NEGATIVE else wrong
    return drawn.choice(others if drawn.random() < errors else right)


def confirm_tails(question: Question, *, error: Share = 0.1, alike: Share = 0.0) -> str:
    """A critic that knows the small world, each of whose votes errs.

    Args:
        question: whether a sentence is right.
        error: of a vote.
        alike: the share of sentences on which all its votes are one.
    """
    said = question.messages[-1].content.splitlines()[-1]
    head, name, tail = _read(said)
    one_mind = random.Random(f"{question.id}")
    drawn = one_mind if one_mind.random() < alike else random.Random(question.seed)
    right = (tail in right_tails(head, name)) != (drawn.random() < error)
    return "yes" if right else "no"


def _read(said: str) -> tuple[str, str, str]:
    """The head, relation and tail of a sentence."""
    for name, relation in RELATIONS.items():
        form = re.escape(relation.sentence).replace(re.escape("{head}"), r"(\w+)")
        if match := re.fullmatch(f"{form}(?: (.+))?", said):
            return match[1], name, match[2] or ""
    raise ValueError(f"no sentence of the small world: {said!r}")
