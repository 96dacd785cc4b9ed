"""Values checked against domains."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union

from jaxdistill._errors import unknown
from jaxdistill.settings.domains import (
    Among,
    Range,
    fields,
    is_mapping,
    is_record,
    is_scheduled,
    is_sequence,
    keys,
    may_change,
)
from jaxdistill.settings.words import nearest, says

_F = TypeVar("_F", bound=Callable[..., Any])


def fault(value: Any, domain: Any) -> str | None:
    """What is wrong with a value, or None: ``"must be a number above 0"``.

    A mapping with the key ``schedule`` passes where schedules are possible; its values are checked
    where the number of steps is known, see :func:`jaxdistill.registry.schedule`.

    Example:
        >>> from jaxdistill.settings import Count, Positive, Share
        >>> fault(-4, Positive)
        'must be a number above 0'
        >>> fault(2.5, Count)
        'must be a whole number, 1 or more'
        >>> fault(0.5, Share) is None
        True
        >>> fault("summ", Literal["sum", "mean"])
        "must be 'mean' or 'sum': did you mean 'sum'?"
    """
    if not _valid(value, domain):
        inner = _inner_fault(value, domain)
        return inner or f"must be {says(domain)}{nearest(value, domain)}"
    return None


def checked(function: _F) -> _F:
    """A function that refuses keywords outside of their domains wherever it is called from.

    Raises:
        ValueError: naming the keyword, its value and what is possible.

    Example:
        >>> from jaxdistill.settings import Natural
        >>> @checked
        ... def shifted(image, *, pixels: Natural = 2): ...
        >>> shifted(None, pixels=-1)
        Traceback (most recent call last):
        ValueError: shifted: pixels=-1 must be a whole number, 0 or more
    """
    domains = {name: parameter.annotation for name, parameter in keys(function).items()}

    @functools.wraps(function)
    def refusing(*arguments: Any, **keywords: Any) -> Any:
        for name, value in keywords.items():
            if name in domains and (wrong := fault(value, domains[name])) is not None:
                raise ValueError(f"{function.__name__}: {name}={value!r} {wrong}")
        return function(*arguments, **keywords)

    return typing.cast(_F, refusing)


def _valid(value: Any, domain: Any) -> bool:
    origin, arguments = typing.get_origin(domain), typing.get_args(domain)
    if domain is Any or isinstance(domain, TypeVar):
        return True
    if origin is Annotated:
        inner, marks = arguments[0], arguments[1:]
        if is_scheduled(marks) and isinstance(value, Mapping):
            return "schedule" in value
        ranges = [mark for mark in marks if isinstance(mark, (Range, Among))]
        return _valid(value, inner) and all(mark.holds(value) for mark in ranges)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in arguments)
    if origin in (Union, types.UnionType):
        return any(_valid(value, each) for each in arguments)
    if is_sequence(origin or domain):
        return _valid_sequence(value, origin or domain, arguments)
    if is_mapping(origin or domain):
        if not isinstance(value, Mapping):
            return False
        key, inner = arguments or (Any, Any)
        return all(_valid(k, key) and _valid(v, inner) for k, v in value.items())
    return _valid_plain(value, domain)


def _valid_sequence(value: Any, kind: Any, arguments: tuple[Any, ...]) -> bool:
    if isinstance(value, (str, bytes)) or not isinstance(value, collections.abc.Sequence):
        return False
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        return len(value) == len(arguments) and all(map(_valid, value, arguments))
    return not arguments or all(_valid(each, arguments[0]) for each in value)


def _valid_plain(value: Any, domain: Any) -> bool:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if domain is int:
        return whole
    if domain is float:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return real and math.isfinite(value)
    if domain in (bool, str):
        return isinstance(value, domain)
    if domain in (None, type(None)):
        return value is None
    if is_record(domain) and isinstance(value, Mapping):
        return _record_fault(value, domain) is None
    if (typing.get_origin(domain) or domain) is collections.abc.Callable:
        return callable(value)
    return inspect.isclass(domain) and isinstance(value, domain)


def _record_fault(value: Mapping[str, Any], domain: Any) -> str | None:
    own = fields(domain)
    for name in value:
        if name not in own:
            return unknown("key", name, own)
    for name, parameter in own.items():
        if name not in value:
            if parameter.default is parameter.empty:
                return f"needs {name!r}"
        elif (wrong := fault(value[name], parameter.annotation)) is not None:
            return f"has {name}={value[name]!r}: it {wrong}"
    return None


def _inner_fault(value: Any, domain: Any) -> str | None:
    """What is wrong inside a value of the right outer kind, where that says more."""
    origin, arguments = typing.get_origin(domain), typing.get_args(domain)
    if origin is Annotated:
        return _inner_fault(value, arguments[0])
    if origin in (Union, types.UnionType):
        found = (_inner_fault(value, each) for each in arguments)
        return next((wrong for wrong in found if wrong), None)
    if is_record(domain) and isinstance(value, Mapping):
        return _record_fault(value, domain)
    if is_mapping(origin or domain) and isinstance(value, Mapping) and len(arguments) == 2:
        for key, each in value.items():
            if (wrong := fault(each, arguments[1])) is not None:
                return f"has {key}={each!r}: it {wrong}"
    return None


def made(value: Any, domain: Any, schedule: Callable[[Any, Any], Any] | None = None) -> Any:
    """A checked value as code wants it: a mapping becomes the dataclass or named tuple it writes.

    Args:
        value: that passes :func:`fault`.
        domain: what it is.
        schedule: ``(value, domain) -> function of the step``, for what names a schedule.

    Example:
        >>> from jaxdistill.settings import Natural
        >>> class Window(typing.NamedTuple):
        ...     first: Natural = 0
        ...     last: Natural = 10
        >>> made({"last": 4}, Window | None)
        Window(first=0, last=4)
    """
    if not isinstance(value, Mapping):
        return value
    if may_change(domain) and "schedule" in value:
        return value if schedule is None else schedule(value, domain)
    for each in (domain, *typing.get_args(domain)):
        # Of several kinds of record it is the first that has these keys.
        if is_record(each) and value.keys() <= (own := fields(each)).keys():
            return each(**{k: made(v, own[k].annotation, schedule) for k, v in value.items()})
    return value
