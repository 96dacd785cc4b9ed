"""Looking names of a config up, and checking every key before anything is called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jaxdistill._errors import unknown


def call(
    kind: str,
    table: Mapping[str, Callable[..., Any]],
    name: str,
    settings: Mapping[str, Any],
    **given: Any,
):
    """Calls what a name stands for with the settings of a config, after checking every key.

    Args:
        kind: what the table holds, for messages.
        table: names to functions.
        name: the name in the config.
        settings: its keywords in the config.
        given: what the caller has to offer; a function gets what it has a parameter for, unless it
            is in settings.

    Raises:
        ValueError: for an unknown name, an unknown key, or a key that is missing.
    """
    function = fixed(kind, table, name, settings).func
    parameters = inspect.signature(function).parameters
    given = {
        key: value for key, value in given.items() if key in parameters and key not in settings
    }
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and key not in settings
        and key not in given
    ]
    if missing:
        raise ValueError(f"{kind} {name!r} needs {', '.join(map(repr, missing))}")
    return function(**given, **settings)


def fixed(
    kind: str,
    table: Mapping[str, Callable[..., Any]],
    name: str,
    settings: Mapping[str, Any],
) -> functools.partial[Any]:
    """What a name stands for with the settings of a config as keywords, not called yet.

    Raises:
        ValueError: for an unknown name or key.
    """
    if name not in table:
        raise ValueError(unknown(kind, name, table))
    parameters = inspect.signature(table[name]).parameters
    for key in settings:
        if key not in parameters:
            raise ValueError(unknown(f"key of {kind} {name!r}", key, parameters))
    return functools.partial(table[name], **settings)


def without(settings: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A mapping less some keys, and less what is None."""
    return {key: value for key, value in settings.items() if key not in keys and value is not None}


def named(kind: str, settings: Mapping[str, Any], key: str = "name") -> str:
    """The name in a part of a config, with a clear error if there is none."""
    if key not in settings:
        raise ValueError(f"{kind} {dict(settings)} does not say which: it needs {key!r}")
    return settings[key]


def flattened(
    function: Callable[..., Any], **groups: tuple[type, Mapping[str, str]]
) -> Callable[..., Any]:
    """A function some of whose keywords are groups of settings, which a config may still write one
    by one beside each other.

    Args:
        function: what is called.
        groups: for each such keyword the named tuple that it is, and the fields of that by the keys
            that stand for them one by one.

    Raises:
        ValueError: as the result is called, for a group that lacks a field.
    """
    signature = inspect.signature(function)
    keys = [key for _, fields in groups.values() for key in fields if key not in groups]
    own = [
        each.replace(default=None) if each.name in groups else each
        for each in signature.parameters.values()
    ]
    flat = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None) for key in keys]

    @functools.wraps(function)
    def made(**settings: Any) -> Any:
        for group, (kind, fields) in groups.items():
            given = {
                fields[key]: settings.pop(key)
                for key in fields
                if key in settings
                and not (key == group and isinstance(settings[key], (Mapping, kind)))
            }
            if isinstance(settings.get(group), Mapping):
                given = {**settings.pop(group), **given}
            if given:
                settings[group] = call(group, {group: kind}, group, given)
        return function(**settings)

    made.__signature__ = signature.replace(parameters=[*own, *flat])  # type: ignore[attr-defined]
    return made
