"""Error messages in one form: what was given, what is possible, what is nearest."""

from __future__ import annotations

import contextlib
import difflib
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# What a sentence to the user is raised as, by this library and by the system. Any other kind of
# exception is a fault of the library, unless it comes while something is read that was given.
SENTENCES = (ValueError, OSError, ImportError, FloatingPointError)
_PACKAGE = Path(__file__).parent


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


@contextlib.contextmanager
def blamed(what: str, where: str | Path = "") -> Iterator[None]:
    """What goes wrong inside is the fault of something that was given, whatever Python calls it.

    Meant for places where nothing speaks but what was given: a config file that is run, a recipe
    that is planned. Sentences of this library pass as they are; of any other exception one is made
    that says what was given, what was raised, and in which line.

    Args:
        what: what was given.
        where: the file whose innermost line is named; the innermost of this library if not given.

    Raises:
        ValueError: in place of what is no sentence of this library.

    Example:
        >>> with blamed("stage 'distil'"):
        ...     {}["width"]
        Traceback (most recent call last):
        ValueError: stage 'distil': KeyError: 'width'
    """
    try:
        yield
    except (Exception, SystemExit) as fault:
        if isinstance(fault, SystemExit) and type(fault) is not SystemExit:
            raise  # a signal that stops the run
        frames = traceback.extract_tb(fault.__traceback__)
        if isinstance(fault, SENTENCES) and _within(frames[-1], _PACKAGE):
            raise
        inside = [each for each in frames[1:] if _within(each, where or _PACKAGE)]
        place = f" ({Path(inside[-1].filename).name}, line {inside[-1].lineno})" if inside else ""
        said = (str(fault).splitlines() or [""])[0]
        raise ValueError(f"{what}: {type(fault).__name__}: {said}{place}") from fault


def _within(frame: traceback.FrameSummary, where: str | Path) -> bool:
    """Whether a line of a traceback is in a file or folder."""
    return Path(frame.filename).is_relative_to(where)
