"""Entries of the tables, and how a config reaches them.

An entry is a function ``(context, *, keywords)``. The context is what the runner offers; the
keyword-only parameters, nothing else, are the keys of a config, each with a domain of
:mod:`jaxdistill.settings` as its annotation. Functions of the library become entries by
:func:`offered`; an entry that adds keys of its own to those of a function by :func:`forwarding`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jaxdistill import settings as domains
from jaxdistill._errors import unknown
from jaxdistill.registry.context import OFFERED, Context
from jaxdistill.registry.schedules import SCHEDULES

Entry = Callable[..., Any]
Record = TypeVar("Record")


def offered(function: Callable[..., Any], *names: str) -> Entry:
    """A function of the library as an entry.

    Its positional parameters are read from the context by their names; its keyword-only parameters
    are the keys of a config.

    Args:
        function: what is called.
        names: keyword-only parameters that are read from the context too.

    Raises:
        ValueError: for a positional parameter that no context has.

    Example:
        >>> def rule(net, classes, *, share: domains.Share = 0.1):
        ...     return net, classes, share
        >>> entry = offered(rule)
        >>> entry(Context(student_net="a net", info={"classes": 3}), share=0.5)
        ('a net', 3, 0.5)
        >>> list(domains.keys(entry))
        ['share']
    """
    parameters = inspect.signature(function).parameters
    positional = [
        name
        for name, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    read = (*positional, *(name for name in names if name not in positional))
    for name in read:
        if name not in OFFERED:
            raise ValueError(unknown(f"offer of the context to {function.__name__}", name, OFFERED))

    @functools.wraps(function)
    def entry(context: Context, **keywords: Any) -> Any:
        return function(**{name: getattr(context, name) for name in read}, **keywords)

    return _signed(entry, {k: v for k, v in domains.keys(function).items() if k not in read})


def forwarding(function: Callable[..., Any], *less: str) -> Callable[[Entry], Entry]:
    """Makes an entry whose ``**rest`` are the keyword-only parameters of a function, less some.

    Example:
        >>> def drawn(seed, *, share: domains.Share = 0.1, size: domains.Count = 8): ...
        >>> @forwarding(drawn, "size")
        ... def entry(context, *, kind: str, **rest): ...
        >>> list(domains.keys(entry))
        ['kind', 'share']
    """

    def made(entry: Entry) -> Entry:
        own = domains.keys(entry)
        theirs = {k: v for k, v in domains.keys(function).items() if k not in (*own, *less)}
        return _signed(entry, {**own, **theirs})

    return made


def module(function: Callable[..., Any]) -> Entry:
    """A net as an entry: all fields of a Flax module, or parameters of its builder, are keys.

    What it must know of the data (``classes``, ``channels``, ``vocabulary``) is read from the
    context unless the config says it.
    """
    parameters = domains.fields(function)
    shared = [name for name in ("classes", "channels", "vocabulary") if name in parameters]
    classes = parameters["classes"].annotation if "classes" in parameters else None

    @functools.wraps(function)
    def entry(context: Context, **keywords: Any) -> Any:
        known = {name: getattr(context, name) for name in shared}
        if "classes" in known:
            known["classes"] = known["classes"] or 0
            if "classes" not in keywords and domains.fault(known["classes"], classes):
                raise ValueError(
                    "it is not known how many classes there are, as the data has no labels that "
                    "are whole numbers, one a record: number them, or give 'classes' to the net"
                )
        return function(**known | keywords)

    only = inspect.Parameter.KEYWORD_ONLY
    keys = {name: parameter.replace(kind=only) for name, parameter in parameters.items()}
    keys |= {name: keys[name].replace(default=None) for name in shared}
    return _signed(entry, keys)


def _signed(entry: Any, keys: Mapping[str, inspect.Parameter]) -> Entry:
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    entry.__signature__ = inspect.Signature([context, *keys.values()])
    return entry


def call(
    kind: str,
    table: Mapping[str, Entry],
    part: Mapping[str, Any],
    context: Context,
    key: str = "name",
) -> Any:
    """Calls the entry that a part of a config names, after checking every key.

    Args:
        kind: what the table holds, for messages.
        table: names to entries.
        part: ``{"name": ..., ...}``; None where nothing can be None leaves the default.
        context: what the runner offers.
        key: the one that holds the name.

    Raises:
        ValueError: for an unknown name or key, a key that is missing, a value outside its domain.
    """
    name = named(kind, part, key)
    entry = found(kind, table, name)
    return entry(context, **checked(f"{kind} {name!r}", entry, less(part, key), context))


def partial(
    kind: str, table: Mapping[str, Callable[..., Any]], part: Mapping[str, Any]
) -> functools.partial[Any]:
    """The function that a part of a config names, with its keywords, not called yet.

    Raises:
        ValueError: as :func:`call`.
    """
    name = named(kind, part)
    function = found(kind, table, name)
    return functools.partial(function, **checked(f"{kind} {name!r}", function, less(part, "name")))


def record(where: str, kind: type[Record], part: Mapping[str, Any] | None) -> Record:
    """A part of a config that has no name, as the dataclass that says what it may hold.

    Raises:
        ValueError: for an unknown key, a key that is missing, a value outside its domain.
    """
    keywords = _checked(where, domains.fields(kind), part or {}, None)
    return kind(**keywords)


def checked(
    where: str,
    function: Callable[..., Any],
    keywords: Mapping[str, Any],
    context: Context | None = None,
) -> dict[str, Any]:
    """The keywords of a function, each within its domain, schedules made.

    Raises:
        ValueError: for an unknown key, a key that is missing, a value outside its domain; it names
            all that are wrong.
    """
    return _checked(where, domains.keys(function), keywords, context)


def _checked(
    where: str,
    keys: Mapping[str, inspect.Parameter],
    keywords: Mapping[str, Any],
    context: Context | None,
) -> dict[str, Any]:
    faults, made = [], {}
    for key, value in keywords.items():
        if key not in keys:
            faults.append(unknown(f"key of {where}", key, keys))
            continue
        domain = keys[key].annotation
        if value is None and (domain is Any or domains.fault(None, domain)):
            continue  # left at its default
        if (wrong := domains.fault(value, domain)) is not None:
            faults.append(f"{key!r} of {where} is {value!r}: it {wrong}")
        else:
            steps = context.steps if context else 0
            schedule = functools.partial(scheduled, f"{key!r} of {where}", steps)
            made[key] = domains.made(value, domain, schedule)
    missing = [
        key
        for key, parameter in keys.items()
        if parameter.default is parameter.empty and keywords.get(key) is None
    ]
    if missing:
        faults.append(f"{where} needs {', '.join(map(repr, missing))}")
    if faults:
        raise ValueError("\n".join(faults))
    return made


def scheduled(where: str, steps: int, value: Mapping[str, Any], domain: Any = Any) -> Any:
    """The function of the step that ``{"schedule": name, ...}`` stands for.

    Args:
        where: what it is the value of, for messages.
        steps: of the stage.
        value: the part of the config.
        domain: what it may be; what the schedule gives at its start, its middle and its end must
            lie there.

    Raises:
        ValueError: for an unknown schedule or key, and for one that leaves the domain.
    """
    made = call("schedule", SCHEDULES, value, Context(steps=steps), "schedule")
    for step in sorted({0, steps // 2, max(steps - 1, 0)}):
        given = float(made(step))
        if (wrong := domains.fault(given, domain)) is not None:
            raise ValueError(f"{where} is {given:g} at step {step} of its schedule: it {wrong}")
    return made


def schedule(value: Any, steps: int) -> Any:
    """A number as it is; a dict that names a ``schedule`` as a function of the step.

    Example:
        >>> rate = schedule({"schedule": "linear", "start": 1.0, "end": 0.0}, steps=10)
        >>> float(rate(5))
        0.5
    """
    if isinstance(value, Mapping) and "schedule" in value:
        return scheduled("the value", steps, value)
    return value


def found(kind: str, table: Mapping[str, Any], name: Any) -> Any:
    """What a name stands for.

    Raises:
        ValueError: for an unknown one, with the nearest.
    """
    if not isinstance(name, str) or name not in table:
        raise ValueError(unknown(kind, name, table))
    return table[name]


def named(kind: str, part: Mapping[str, Any], key: str = "name") -> str:
    """The name in a part of a config, with a clear error if there is none."""
    if not isinstance(part, Mapping) or key not in part:
        given = dict(part) if isinstance(part, Mapping) else part
        raise ValueError(f"{kind} {given!r} does not say which: it needs {key!r}")
    return part[key]


def stages_in(entry: Entry, part: Mapping[str, Any]) -> tuple[str, ...]:
    """The earlier stages that a part of a config names, by the domains of the entry's keywords;
    values outside of these name none."""
    named = [
        name
        for key, parameter in domains.keys(entry).items()
        if part.get(key) is not None and domains.fault(part[key], parameter.annotation) is None
        for name in domains.earlier(part[key], parameter.annotation)
    ]
    return tuple(dict.fromkeys(named))


def less(part: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A mapping less some keys."""
    return {key: value for key, value in part.items() if key not in keys}


def without(part: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A mapping less some keys, and less what is None."""
    return {key: value for key, value in part.items() if key not in keys and value is not None}
