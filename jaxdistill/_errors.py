"""Error messages in one form: what was given, what is possible, what is nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def unknown(kind: str, name: object, options: Iterable[str]) -> str:
    """Says that a name is not known, which names are, and which of them is nearest.

    Args:
        kind: what the name should have named, e.g. ``"loss"``.
        name: the name that was given.
        options: the valid names.

    Returns:
        One sentence for the message of an exception.

    Example:
        >>> unknown("loss", "hinton", ["hinton_kd", "dist"])
        "unknown loss 'hinton': did you mean 'hinton_kd'? Possible: 'dist', 'hinton_kd'."
    """
    options = sorted(str(option) for option in options)
    nearest = difflib.get_close_matches(str(name), options, n=1, cutoff=0.4)
    hint = f" did you mean {nearest[0]!r}?" if nearest else ""
    possible = ", ".join(map(repr, options)) if options else "nothing is registered"
    return f"unknown {kind} {str(name)!r}:{hint} Possible: {possible}."


def listed(names: Sequence[object], most: int = 10) -> str:
    """Names as a sentence lists them, the first ones of many.

    Example:
        >>> listed("abcd", 2)
        "'a', 'b' and 2 more"
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def differences(there: Any, here: Any, path: str = "") -> list[str]:
    """Every value in which two trees of JSON data differ, a line each.

    Example:
        >>> differences({"net": {"width": 8}}, {"net": {"width": 16}})
        ['- net.width: 8 there, 16 now']
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        found = []
        for key in sorted(there.keys() | here.keys()):
            inner = f"{path}.{key}" if path else key
            found += differences(there.get(key, "absent"), here.get(key, "absent"), inner)
        return found
    return [] if there == here else [f"- {path}: {there!r} there, {here!r} now"]
