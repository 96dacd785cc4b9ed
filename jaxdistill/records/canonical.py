"""Nouns as JSON and back, and identities from it: one text for one thing, whoever writes it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

from jaxdistill._errors import unknown

_Noun = TypeVar("_Noun")
_DIGITS = 32  # of SHA-256: 128 bits
_SIMPLE = frozenset((str, int, float, bool, type(None)))
_ENCODER = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
)


def plain(value: Any) -> Any:
    """A noun as JSON data: fields become keys, tuples lists.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Point:
        ...     at: tuple[int, ...]
        >>> plain(Point((1, 2)))
        {'at': [1, 2]}
    """
    kind = type(value)
    if kind in _SIMPLE:
        return value
    if names := _names(kind):
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (str, int, float)):
        return value
    raise ValueError(f"JSON has no {type(value).__name__}: {value!r}")


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass; of anything else none."""
    is_noun = dataclasses.is_dataclass(kind)
    return tuple(field.name for field in dataclasses.fields(kind)) if is_noun else ()


def line(value: Any) -> str:
    """A noun as one line of JSON, without spaces, its keys sorted: the same bytes every time.

    Raises:
        ValueError: for a number that is not finite, which JSON does not have.

    Example:
        >>> line({"b": 1, "a": "é"})
        '{"a":"é","b":1}'
    """
    return _ENCODER.encode(plain(value))


def identity(*parts: Any) -> str:
    """A name for what some things hold: SHA-256 of their canonical JSON, its first 128 bits.

    Texts are compared in Unicode's normal form C, so an accent typed in two ways is one.

    Example:
        >>> identity({"a": 1, "b": 2}) == identity({"b": 2, "a": 1})
        True
        >>> identity("e\\u0301") == identity("\\u00e9")
        True
    """
    text = line(parts)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def read(kind: type[_Noun], data: Any, where: str) -> _Noun:
    """A noun from the JSON data that :func:`plain` made of it.

    Args:
        kind: its class.
        data: the data.
        where: where it stands, for errors.

    Raises:
        ValueError: naming the place and the key that is unknown, missing or of another type.
    """
    try:
        return _reader(kind)(data)
    except ValueError as fault:
        raise ValueError(f"{where}: {fault}") from fault


@functools.cache
def _reader(domain: Any) -> Callable[[Any], Any]:
    """What reads the values of a type."""
    origin, arguments = typing.get_origin(domain), typing.get_args(domain)
    if origin is typing.Annotated:
        return _reader(arguments[0])
    if dataclasses.is_dataclass(domain):
        return _dataclass_reader(domain)
    if origin is Literal:
        return functools.partial(_literal, arguments)
    if origin in (Union, types.UnionType):
        kinds = [each for each in arguments if each is not type(None)]
        inner = _reader(kinds[0]) if len(kinds) == 1 else _anything
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        return functools.partial(_sequence, _reader(arguments[0]))
    if domain in (str, int, float, bool):
        return functools.partial(_scalar, domain)
    return _mapping if (origin or domain) is Mapping else _anything


def _dataclass_reader(kind: Any) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    readers = {field.name: _reader(hints[field.name]) for field in dataclasses.fields(kind)}
    needed = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def made(data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise ValueError(f"a {kind.__name__} is a JSON object, not {_short(data)}")
        if lacking := sorted(needed - data.keys()):
            raise ValueError(f"a {kind.__name__} needs {lacking[0]!r}")
        values = {}
        for name, value in data.items():
            if name not in readers:
                raise ValueError(unknown(f"key of a {kind.__name__}", name, readers))
            try:
                values[name] = readers[name](value)
            except ValueError as fault:
                raise ValueError(f"{name}: {fault}") from fault
        return kind(**values)

    return made


def _literal(possible: Sequence[Any], value: Any) -> Any:
    if value not in possible:
        raise ValueError(unknown("value", value, map(str, possible)))
    return value


def _sequence(inner: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"it is a list, not {_short(value)}")
    return tuple(inner(each) for each in value)


def _scalar(kind: type, value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is float and (whole or isinstance(value, float)):
        if not math.isfinite(value):
            raise ValueError(f"it is a finite number, not {value}")
        return float(value)
    if whole if kind is int else isinstance(value, kind):
        return value
    raise ValueError(f"it is a {kind.__name__}, not {_short(value)}")


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"it is a JSON object, not {_short(value)}")
    return dict(value)


def _anything(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 60 else said[:57] + "..."
