"""Steps in their order: which orders can be, and what becomes of records on the way."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from jaxdistill._errors import listed
from jaxdistill.progress import shown
from jaxdistill.records.canonical import identity
from jaxdistill.records.nouns import Record, Verdict
from jaxdistill.records.requests import Request
from jaxdistill.records.steps import SAMPLES, Decision, Step, short

Item = TypeVar("Item", Request, Record)


def refuse_order(steps: Sequence[Step]) -> None:
    """Refuses an order that cannot be.

    Raises:
        ValueError: for a step that needs what no step before it gives or what one has undone, and
            for one that undoes what an earlier one was for.

    Example:
        >>> from jaxdistill.records.steps import deciding, step
        >>> @deciding(needs=("score {by}",))
        ... def best(records, seed, *, by: str): ...
        >>> refuse_order([step(best, by="truth")])
        Traceback (most recent call last):
        ValueError: step 1, 'best', needs score truth, which nothing before it gives
    """
    given = {SAMPLES: "the beginning"}
    undone: dict[str, str] = {}
    for number, each in enumerate(steps, 1):
        said = f"{each.name!r}"
        for need in each.facts.needs:
            if need in undone:
                raise ValueError(
                    f"step {number}, {said}, needs {need}, which {undone[need]} before it has "
                    "undone: put it first"
                )
            if need not in given:
                raise ValueError(
                    f"step {number}, {said}, needs {need}, which nothing before it gives"
                )
        for fact in each.facts.undoes:
            if fact in given and fact != SAMPLES:
                raise ValueError(
                    f"step {number}, {said}, would undo what {given[fact]} before it gives "
                    f"({fact}): put it first"
                )
            undone[fact] = said
            given.pop(fact, None)
        for fact in each.facts.gives:
            undone.pop(fact, None)
            given[fact] = said


# --- running them -------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What steps left.

    Attributes:
        kept: in the order of their ids, each with its history.
        dropped: the same, the last verdict of each saying why.
        counts: for each step what it was, how many records came, were kept, made and, by reason,
            dropped.
    """

    kept: list[Any]
    dropped: list[tuple[Any, Verdict]]
    counts: list[dict[str, Any]]


def run(items: Sequence[Item], steps: Sequence[Step], *, seed: int = 0) -> Outcome:
    """Takes records, or requests, through steps.

    Args:
        items: in any order.
        steps: in order.
        seed: each step has one of its own, from this, its place and its name.

    Raises:
        ValueError: for an order that cannot be, two items of one id, and a step that loses a
            record, decides twice about one or makes one without parents.

    Example:
        >>> from jaxdistill.records.nouns import Provenance
        >>> from jaxdistill.records.steps import step
        >>> def short(records, seed):
        ...     return [Decision(r, len(r.answer) < 3, reason="long") for r in records]
        >>> came = Provenance("oracle")
        >>> two = [Record("b", (), came, answer="longer"), Record("a", (), came, answer="5")]
        >>> outcome = run(two, [step(short)])
        >>> [r.id for r in outcome.kept], outcome.counts[0]["dropped"]
        (['a'], {'long': 1})
    """
    refuse_order(steps)
    kept, dropped, counts = _ordered(items), [], []
    for number, each in enumerate(shown(steps, "filter", "steps", said=lambda s: s.name)):
        decisions = list(each.run(kept, seed_of(seed, number, each.name)))
        _refuse_loss(each, kept, decisions)
        before, kept, reasons = len(kept), [], Counter()
        known: dict[Any, Verdict] = {}
        hashed = identity(each.settings)
        for decision in decisions:
            said = _plain_verdict(each, decision)
            if said not in known:
                known[said] = Verdict(each.name, each.facts.version, hashed, *said)
            verdict = known[said]
            item = _signed(decision.record, verdict)
            if decision.keep:
                kept.append(item)
            else:
                dropped.append((item, verdict))
                reasons[decision.reason or "dropped"] += 1
        kept = _ordered(kept)
        counts.append(
            {
                **each.described(),
                "came": before,
                "kept": len(kept),
                "made": len(decisions) - before,
                "dropped": dict(sorted(reasons.items())),
            }
        )
    return Outcome(kept, dropped, counts)


def seed_of(seed: int, number: int, name: str) -> int:
    """The seed of a step, of 63 bits."""
    return int(identity(seed, number, name)[:16], 16) >> 1


def refuse_unsteady(each: Step, items: Sequence[Any], *, seed: int = 0) -> None:
    """Refuses a step that decides otherwise when it is run again: one that forgets its seed.

    Raises:
        ValueError: naming the step and the first record of which something else was said.
    """
    first, second = (
        [(d.record, *_plain_verdict(each, d)) for d in each.run(_ordered(items), seed)]
        for _ in range(2)
    )
    if first == second:
        return
    differing = (a[0].id for a, b in zip(first, second, strict=False) if a != b)
    where = next((f": record {name} first" for name in differing), "")
    raise ValueError(
        f"step {each.name!r} decides otherwise when it is run again{where}: it must draw from its "
        "seed alone"
    )


def _plain_verdict(each: Step, decision: Decision) -> tuple[Any, ...]:
    """What is said of a record, in numbers of Python."""
    keep, score, reason, detail = decision[1:]
    if score is not None:
        score = float(score)
        if not math.isfinite(score):
            raise ValueError(
                f"step {each.name!r} gave the score {score} to record {decision.record.id}: scores "
                "are finite"
            )
    return bool(keep), score, reason, detail


def _signed(item: Any, verdict: Verdict) -> Any:
    if isinstance(item, Record):
        return dataclasses.replace(item, history=(*item.history, verdict))
    return item


def _ordered(items: Iterable[Any]) -> list[Any]:
    names = {}
    for item in items:
        name = item.id
        if name in names:
            raise ValueError(
                f"two items have the id {name} (sources {names[name].source!r} and "
                f"{item.source!r}): give each item a source of its own"
            )
        names[name] = item
    return [names[name] for name in sorted(names)]


def _refuse_loss(each: Step, came: Sequence[Any], decisions: Sequence[Decision]) -> None:
    names, decided = {item.id for item in came}, set()
    for decision in decisions:
        if not isinstance(decision, Decision):
            raise ValueError(f"step {each.name!r} gave {short(decision)} for a Decision")
        name = decision.record.id
        if name in decided:
            raise ValueError(f"step {each.name!r} decides twice about {name}")
        decided.add(name)
        if name not in names:
            came_from = getattr(decision.record, "provenance", None)
            if came_from is None or not came_from.parents:
                raise ValueError(
                    f"step {each.name!r} gave a record {name} that is new and names no parents: "
                    "make it with made_from"
                )
    if lost := sorted(names - decided):
        raise ValueError(
            f"step {each.name!r} decided nothing about {len(lost)} of {len(names)} records: "
            f"{listed(lost, 3)}"
        )
