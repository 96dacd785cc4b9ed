"""Steps: pure functions of records and a seed that decide about every record, and say why.

A step is written as a function ``(records, seed, *, settings) -> [Decision]`` under
:func:`deciding`, and put into a pipeline by :func:`step`. It is given records in the order of their
ids, so what it does cannot depend on the order in which answers came. Nothing vanishes: a record
about which nothing is decided is an error.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from jaxdistill import settings as domains
from jaxdistill._errors import unknown
from jaxdistill.records.canonical import identity, plain

_F = TypeVar("_F", bound=Callable[..., Any])

SAMPLES = "all answers"
"""What steps that compare the answers to one request need; it is there at the beginning."""
UNIQUE = "texts without duplicates"
"""What steps that drop duplicates give."""
BALANCED = "a balance of copies"
"""What steps that repeat records give; looking for duplicates afterwards would undo it."""


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
    check: Callable[[Mapping[str, Any]], str] | None = None,
) -> Callable[[_F], _F]:
    """Says of a function that it is a step; see :class:`Facts` for what is said.

    Args:
        version: of its code.
        needs: what must hold before it.
        gives: what holds after it.
        undoes: what no longer holds after it.
        requests: whether it also decides about requests.
        check: ``settings -> what is wrong with them``, empty if nothing is, beyond what their
            domains say; asked before anything runs.
    """
    facts = Facts(version, tuple(needs), tuple(gives), tuple(undoes), requests)

    def said(function: _F) -> _F:
        function.facts = facts  # type: ignore[attr-defined]
        function.check = check  # type: ignore[attr-defined]
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
            raise ValueError(f"{name}: {key}={short(value)} {wrong}")
    for key, parameter in own.items():
        if key not in settings and parameter.default is parameter.empty:
            raise ValueError(f"{name} needs {key!r}")
    whole = {key: settings.get(key, parameter.default) for key, parameter in own.items()}
    check = getattr(function, "check", None)
    if check is not None and (wrong := check(whole)):
        raise ValueError(f"{name}: {wrong}")
    known = {key: _identified(value) for key, value in whole.items()}
    facts = getattr(function, "facts", Facts())
    return Step(name, functools.partial(function, **settings), known, _filled(facts, whole))


def short(value: Any) -> str:
    """A value as errors show it."""
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


def needs_package(module: str, function: str) -> str:
    """Nothing, where a package can be imported that a step needs.

    Raises:
        ImportError: naming the extra.
    """
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{function} needs: pip install 'jaxdistill[records]'")
    return ""


def draw(seed: int, name: str) -> float:
    """A number in [0, 1) of one thing's own, whatever else there is.

    Example:
        >>> draw(0, "a") == draw(0, "a"), draw(0, "a") == draw(1, "a")
        (True, False)
    """
    return int(identity(seed, name)[:13], 16) / 2**52
