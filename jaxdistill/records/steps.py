"""Steps: pure functions of records and a seed that decide about every record, and say why.

A step is written as a function ``(records, seed, *, settings) -> [Decision]`` under
:func:`deciding`, and put into a pipeline by :func:`step`. It is given records in the order of their
ids, so what it does cannot depend on the order in which answers came. Nothing vanishes: a record
about which nothing is decided is an error.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from jaxdistill import settings as domains
from jaxdistill._errors import listed, unknown
from jaxdistill.progress import shown
from jaxdistill.records.canonical import identity, plain
from jaxdistill.records.nouns import Record, Request, Verdict

Item = TypeVar("Item", Request, Record)
_F = TypeVar("_F", bound=Callable[..., Any])

SAMPLES = "all answers"
"""What steps that compare the answers to one request need; it is there at the beginning."""


class Decision(NamedTuple):
    """What a step decides about a record.

    Attributes:
        record: the record, changed or not, or a new one that names its parents.
        keep: whether it goes on.
        score: the number that decided, if there is one.
        reason: in a few words that are counted: the same for many records.
        detail: what is particular to this one.
    """

    record: Any
    keep: bool = True
    score: float | None = None
    reason: str = ""
    detail: str = ""


class Facts(NamedTuple):
    """What a step says of itself.

    Attributes:
        version: of its code; it changes when the same settings decide otherwise.
        needs: what must hold before it, such as ``"score {name}"``; braces are filled from its
            settings.
        gives: what holds after it.
        undoes: what no longer holds after it, whoever gave it.
        requests: whether it also decides about requests, before anybody is asked.
    """

    version: int = 1
    needs: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    undoes: tuple[str, ...] = ()
    requests: bool = False


class Step(NamedTuple):
    """A step with its settings.

    Attributes:
        name: of its function.
        run: ``(records, seed) -> decisions``.
        settings: all of them, as JSON data; of functions their names.
        facts: what it says of itself.
    """

    name: str
    run: Callable[[Sequence[Any], int], Iterable[Decision]]
    settings: Mapping[str, Any]
    facts: Facts

    def described(self) -> dict[str, Any]:
        """What identifies it, for the manifest."""
        return {
            "step": self.name,
            "version": self.facts.version,
            "settings": plain(self.settings),
        }


def deciding(
    version: int = 1,
    *,
    needs: Sequence[str] = (),
    gives: Sequence[str] = (),
    undoes: Sequence[str] = (),
    requests: bool = False,
) -> Callable[[_F], _F]:
    """Says of a function that it is a step; see :class:`Facts` for what is said."""
    facts = Facts(version, tuple(needs), tuple(gives), tuple(undoes), requests)

    def said(function: _F) -> _F:
        function.facts = facts  # type: ignore[attr-defined]
        return function

    return said


def step(function: Callable[..., Any], **settings: Any) -> Step:
    """A function with settings as a step of a pipeline.

    Args:
        function: ``(records, seed, *, settings) -> decisions``. One without :func:`deciding` needs,
            gives and undoes nothing.
        **settings: those that are not the defaults. A function among them is known by its ``name``,
            ``revision`` (attributes, if it has them) or its Python name: two that differ need
            different ones.

    Raises:
        ValueError: for an unknown, missing or impossible setting.

    Example:
        >>> def short(records, seed, *, most: domains.Count = 10):
        ...     return [Decision(r, len(r.answer) <= most, reason="too long") for r in records]
        >>> step(short, most=3).described()
        {'step': 'short', 'version': 1, 'settings': {'most': 3}}
        >>> step(short, least=3)
        Traceback (most recent call last):
        ValueError: unknown setting of short 'least': ... Possible: 'most'.
    """
    name = getattr(function, "__name__", type(function).__name__)
    own = domains.keys(function)
    for key, value in settings.items():
        if key not in own:
            raise ValueError(unknown(f"setting of {name}", key, own))
        if (wrong := domains.fault(value, own[key].annotation)) is not None:
            raise ValueError(f"{name}: {key}={_short(value)} {wrong}")
    for key, parameter in own.items():
        if key not in settings and parameter.default is parameter.empty:
            raise ValueError(f"{name} needs {key!r}")
    whole = {key: settings.get(key, parameter.default) for key, parameter in own.items()}
    known = {key: _identified(value) for key, value in whole.items()}
    facts = getattr(function, "facts", Facts())
    return Step(name, functools.partial(function, **settings), known, _filled(facts, whole))


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) < 80 else said[:77] + "..."


def _identified(value: Any) -> Any:
    """A setting as the manifest holds it: functions by name, many texts by their hash."""
    if hasattr(value, "described"):
        return value.described()
    if callable(value):
        named = getattr(value, "name", None) or getattr(value, "__qualname__", None)
        return f"{named or type(value).__qualname__} {getattr(value, 'revision', '')}".strip()
    if isinstance(value, (list, tuple)) and len(value) > 16:
        return {"count": len(value), "sha256": identity(value)}
    return plain(value)


def _filled(facts: Facts, settings: Mapping[str, Any]) -> Facts:
    def filled(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(each.format(**settings) for each in texts)

    return facts._replace(
        needs=filled(facts.needs), gives=filled(facts.gives), undoes=filled(facts.undoes)
    )


# --- the order of steps -------------------------------------------------------------------------


def refuse_order(steps: Sequence[Step]) -> None:
    """Refuses an order that cannot be.

    Raises:
        ValueError: for a step that needs what no step before it gives or what one has undone, and
            for one that undoes what an earlier one was for.

    Example:
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
            said = decision[1:]
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


def draw(seed: int, name: str) -> float:
    """A number in [0, 1) of one thing's own, whatever else there is.

    Example:
        >>> draw(0, "a") == draw(0, "a"), draw(0, "a") == draw(1, "a")
        (True, False)
    """
    return int(identity(seed, name)[:13], 16) / 2**52


def refuse_unsteady(each: Step, items: Sequence[Any], *, seed: int = 0) -> None:
    """Refuses a step that decides otherwise when it is run again: one that forgets its seed.

    Raises:
        ValueError: naming the step and the first record of which something else was said.
    """
    first, second = ([*each.run(_ordered(items), seed)] for _ in range(2))
    said = (identity(*map(plain, pair)) for pair in (first, second))
    if next(said) == next(said):
        return
    differing = (a for a, b in zip(first, second, strict=False) if identity(a) != identity(b))
    where = next((f": record {each.record.id} first" for each in differing), "")
    raise ValueError(
        f"step {each.name!r} decides otherwise when it is run again{where}: it must draw from its "
        "seed alone"
    )


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
            raise ValueError(f"step {each.name!r} gave {_short(decision)} for a Decision")
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
