"""Domains in words, for messages."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from typing import Annotated, Any, Literal, Union

from jaxdistill._errors import unknown
from jaxdistill.settings.domains import (
    Among,
    OfStage,
    fields,
    is_mapping,
    is_record,
    is_scheduled,
    is_sequence,
)


def says(domain: Any) -> str:
    """A domain in words.

    Example:
        >>> from jaxdistill.settings import Count
        >>> says(tuple[Count, ...] | None)
        'a sequence (each a whole number, 1 or more), or None'
    """
    origin, arguments = typing.get_origin(domain), typing.get_args(domain)
    if domain is Any:
        return "anything"
    if origin is Annotated:
        inner, marks = arguments[0], arguments[1:]
        if any(isinstance(mark, OfStage) for mark in marks):
            return "the name of an earlier stage"
        if is_scheduled(marks):
            return f"{says(typing.get_args(inner)[0])}, or a schedule"
        # A number is whole or not, and in its range.
        bounds = ", ".join(str(mark) for mark in marks)
        words = "a whole number" if inner is int else "a number" if inner is float else says(inner)
        comma = "," if inner is int or isinstance(marks[0], Among) else ""
        return f"{words}{comma} {bounds}" if bounds else words
    if origin is Literal:
        return " or ".join(sorted(map(repr, arguments)))
    if origin in (Union, types.UnionType):
        return ", or ".join(dict.fromkeys(says(each) for each in arguments))
    if is_sequence(origin or domain):
        return f"a sequence{_each(arguments)}"
    if is_mapping(origin or domain):
        return f"a mapping{_each(arguments[1:])}"
    if (origin or domain) is collections.abc.Callable:
        return "a function"
    if inspect.isclass(domain) and domain not in _NAMES and not is_record(domain):
        return f"a {domain.__name__}"

    return _NAMES.get(domain) or f"a mapping of {', '.join(map(repr, fields(domain)))}"


_NAMES = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "a string",
    type(None): "None",
}


def _each(arguments: tuple[Any, ...]) -> str:
    kinds = [each for each in arguments if each is not Ellipsis and each is not Any]
    if not kinds:
        return ""
    whole = len(kinds) > 1
    return f" of ({', '.join(map(says, kinds))})" if whole else f" (each {says(kinds[0])})"


def nearest(value: Any, domain: Any) -> str:
    options = [each for each in _choices(domain) if isinstance(each, str)]
    if not isinstance(value, str) or not options:
        return ""
    sentence = unknown("", value, options)
    start = sentence.find("did you mean")
    return f": {sentence[start : sentence.index('?') + 1]}" if start >= 0 else ""


def _choices(domain: Any) -> tuple[Any, ...]:
    origin, arguments = typing.get_origin(domain), typing.get_args(domain)
    if origin is Literal:
        return arguments
    if origin in (Union, types.UnionType, Annotated):
        inner = arguments[:1] if origin is Annotated else arguments
        return tuple(choice for each in inner for choice in _choices(each))
    return ()
