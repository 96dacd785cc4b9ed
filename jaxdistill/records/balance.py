"""Steps that change how much there is of what: negatives, bins of equal size, repetition."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxdistill.records.nouns import Record, made_from
from jaxdistill.records.requests import Message
from jaxdistill.records.steps import BALANCED, Decision, deciding, draw
from jaxdistill.records.texts import normal
from jaxdistill.settings import Count, Natural, Positive


def _asks_for_a_kind(said: Mapping[str, Any]) -> str:
    fine = "{kind}" in said["question"]
    return "" if fine else f"question={said['question']!r} needs '{{kind}}' where the kind goes"


@deciding(check=_asks_for_a_kind)
def negatives(
    items: Sequence[Record],
    seed: int,
    *,
    kind: str = "type",
    of: str = "passage",
    question: str = "What describes {kind} in the text?",
    answer: str = "[]",
    ratio: Positive = 1.0,
    by: Literal["frequency", "uniform"] = "frequency",
    split: str = "train",
) -> list[Decision]:
    """Adds questions about kinds that a text does not have, whose answer is empty (Zhou et al.,
    UniversalNER, 2024).

    A record asks about one kind in one text: ``meta[of]`` names the text, ``meta[kind]`` the kind.
    The last message of the user is replaced by the question, what is learnt by the empty answer. A
    kind that the text has, however it is written, is never drawn.

    Args:
        items: records.
        seed: draws the kinds of each text.
        kind: the key of the kind.
        of: the key of the text.
        question: the new question, with ``{kind}`` in it.
        answer: the empty one.
        ratio: how many negatives for each positive of a text.
        by: kinds are drawn as often as they occur among all records, or all alike.
        split: the set to which they are added.

    Raises:
        ValueError: for a record without one of the keys.
    """
    texts: dict[str, list[Record]] = {}
    spelt: dict[str, str] = {}
    often: Counter[str] = Counter()
    for each in items:
        for key in (kind, of):
            if not isinstance(each.meta.get(key), str):
                raise ValueError(f"negatives: record {each.id} has no text in meta[{key!r}]")
        if each.split == split:
            texts.setdefault(each.meta[of], []).append(each)
            name = normal(each.meta[kind])
            spelt.setdefault(name, each.meta[kind])
            often[name] += 1
    names = sorted(often)
    weights = np.array([often[n] if by == "frequency" else 1 for n in names], np.float64)
    found = [Decision(each) for each in items]
    for text, members in texts.items():
        present = {normal(each.meta[kind]) for each in members}
        share = np.where([n in present for n in names], 0.0, weights)
        wanted = _rounded(len(present) * ratio, draw(seed, text))
        count = min(wanted, int((share > 0).sum()))
        if not count:
            continue
        drawn = np.random.default_rng(int(draw(seed, f"{text} kinds") * 2**52))
        chosen = drawn.choice(len(names), count, replace=False, p=share / share.sum())
        for number, place in enumerate(chosen.tolist()):
            name = spelt[names[place]]
            said = question.replace("{kind}", name)
            found.append(
                Decision(_negative(members[0], number, said, answer, {kind: name}), reason="added")
            )
    return found


def _rounded(value: float, chance: float) -> int:
    """Up as often as what is over says: 1.5 becomes 2 half of the time."""
    whole = math.floor(value)
    return whole + (chance < value - whole)


def _negative(
    record: Record, number: int, question: str, answer: str, meta: Mapping[str, str]
) -> Record:
    messages = list(record.messages)
    users = [i for i, each in enumerate(messages) if each.role == "user"]
    if not users:
        raise ValueError(f"negatives: record {record.id} has no message of a user")
    cut = messages[: users[-1]]
    said = [Message("user", question), Message("assistant", answer, learn=True)]
    return made_from(
        [record],
        "negatives",
        number,
        messages=(*cut, *said),
        raw=answer,
        answer=answer,
        rationale="",
        reference=answer,
        scores={},
        meta={**record.meta, **meta, "negative": True},
        top=None,
    )


def _has_bins(said: Mapping[str, Any]) -> str:
    if said["percentile"] > 100:
        return f"percentile={said['percentile']} must be at most 100"
    return "" if said["low"] < said["high"] else f"no score is from {said['low']} to {said['high']}"


@deciding(needs=("score {by}",), gives=(BALANCED,), check=_has_bins)
def balanced(
    items: Sequence[Record],
    seed: int,
    *,
    by: str = "score",
    low: int = 0,
    high: int = 10,
    percentile: Natural = 75,
    empty: bool = True,
    split: str = "train",
) -> list[Decision]:
    """Resamples the records of each whole score to one size: a percentile of the sizes there are
    (T2I-Eval, 2024, takes the 75th).

    Bins are ``[low, low + 1), ...``, the last one ``high`` alone, and one of records without a
    score, which are dropped. Of larger bins some are left out, of smaller ones all are repeated as
    often as it takes; an empty one stays empty.

    Args:
        items: records.
        seed: says which are left out, and which are repeated once more.
        by: the score.
        low: the lowest one.
        high: the highest one.
        percentile: of the sizes of bins, interpolated linearly, rounded down.
        empty: whether empty bins, and that of records without a score, are among the sizes.
        split: the set that is balanced; others stay as they are.

    Raises:
        ValueError: for a score out of bounds.
    """
    bins: dict[int | None, list[Record]] = {each: [] for each in range(low, high + 1)}
    bins[None] = []
    found = []
    for each in items:
        if each.split != split:
            found.append(Decision(each))
            continue
        score = each.scores.get(by)
        if score is not None and not low <= score <= high:
            raise ValueError(
                f"balanced: record {each.id} has {by} {score}, which is not from {low} to {high}"
            )
        bins[None if score is None else math.floor(score)].append(each)
    sizes = [len(each) for each in bins.values() if each or empty]
    size = int(np.percentile(sizes, percentile)) if sizes else 0
    for value, members in bins.items():
        if value is None:
            found += [Decision(each, False, reason=f"no score {by}") for each in members]
        else:
            found += resampled(members, size, seed, "balanced", f"bin {value} is full")
    return found


def resampled(
    members: Sequence[Record], size: int, seed: int, step: str, reason: str
) -> list[Decision]:
    """A group brought to a size: some dropped, or all repeated, and some once more.

    Args:
        members: the group.
        size: how many it is to have; an empty group stays empty.
        seed: says which.
        step: the name of the step that does so.
        reason: why some are dropped.
    """
    ranked = sorted(members, key=lambda each: (draw(seed, each.id), each.id))
    found = [Decision(each) for each in ranked[:size]]
    found += [Decision(each, False, reason=reason) for each in ranked[size:]]
    for number in range(len(ranked), size if ranked else 0):
        again, place = divmod(number, len(ranked))
        found.append(Decision(made_from([ranked[place]], step, again), reason="repeated"))
    return found


@deciding(gives=(BALANCED,))
def repeated(
    items: Sequence[Record],
    seed: int,
    *,
    times: Mapping[str, Count],
    split: str = "train",
) -> list[Decision]:
    """Repeats the records of some tasks.

    Args:
        items: records.
        seed: not used.
        times: how often each task's are there afterwards; those of other tasks once.
        split: the set in which they are repeated.
    """
    found = [Decision(each) for each in items]
    for each in items:
        if each.split == split:
            for number in range(1, times.get(each.task, 1)):
                found.append(Decision(made_from([each], "repeated", number), reason="repeated"))
    return found


@deciding()
def capped(
    items: Sequence[Record],
    seed: int,
    *,
    most: Count,
    among: Literal["task", "source", "teacher", "split"] = "task",
) -> list[Decision]:
    """Keeps at most so many records of each task, source, teacher or split, drawn at random.

    Args:
        items: records.
        seed: says which.
        most: so many are not too many.
        among: what groups them.
    """
    groups: dict[str, list[Record]] = {}
    for each in items:
        key = each.provenance.teacher if among == "teacher" else getattr(each, among)
        groups.setdefault(key, []).append(each)
    found = []
    for members in groups.values():
        size = min(most, len(members))
        found += resampled(members, size, seed, "capped", f"{among} is full")
    return found
