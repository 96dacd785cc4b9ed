"""Metrics as sums and counts, and the lines in which they are written."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from jaxdistill._files import write_text


class Writer(Protocol):
    """Somewhere to put metrics; see also :mod:`jaxdistill.training.tracking`."""

    def __call__(self, step: int, values: Mapping[str, float], kind: str) -> None: ...


# Of every metric the sum and the count over some steps.
Totals = Mapping[str, tuple[float, float]]


def added(totals: Totals, step: Mapping[str, tuple[float, float]]) -> Totals:
    """Totals with one step more. Steps are added one by one, in order, so that it does not matter
    for the last bit where a run was stopped.

    Example:
        >>> means(added(added({}, {"kd": (6.0, 2.0)}), {"kd": (3.0, 1.0)}))
        {'kd': 3.0}
    """
    found = dict(totals)
    for name, (total, count) in step.items():
        before = found.get(name, (0.0, 0.0))
        found[name] = (before[0] + float(total), before[1] + float(count))
    return found


def means(totals: Totals) -> dict[str, float]:
    """The mean of every metric; what was never counted is left out."""
    return {name: total / count for name, (total, count) in totals.items() if count}


def json_lines(path: str | os.PathLike) -> Writer:
    """Appends one JSON object per call to a file; what is not finite is written as a string."""
    path = Path(path)

    def write(step: int, values: Mapping[str, float], kind: str) -> None:
        with path.open("a") as file:
            file.write(as_text([{"step": step, "kind": kind, **values}]))

    return write


def as_text(lines: Iterable[Mapping[str, Any]]) -> str:
    """Lines as a file holds them."""
    return "".join(json.dumps({k: _strict(v) for k, v in line.items()}) + "\n" for line in lines)


def from_text(text: str) -> list[dict[str, Any]]:
    """The lines of a file, less a last one that a killed run left half written."""
    lines = []
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            break
        lines.append({key: _number(value) for key, value in found.items()})
    return lines


def read_json_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """What :func:`json_lines` wrote, less a last line that a killed run left half written."""
    path = Path(path)
    return from_text(path.read_text()) if path.exists() else []


def bring_back(path: str | os.PathLike, text: str) -> None:
    """Makes a file of lines what a checkpoint knows of it: what was written later goes, and what
    was damaged since comes back, with a warning."""
    path, wanted = Path(path), text.encode()
    there = path.read_bytes() if path.exists() else b""
    if there == wanted:
        return
    if not there.startswith(wanted):
        logging.warning("%s is missing or damaged: brought back from the checkpoint", path)
    write_text(path, text)


def _strict(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> Any:
    return float(value) if value in ("nan", "inf", "-inf") else value
