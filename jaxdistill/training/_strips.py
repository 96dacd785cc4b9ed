"""Values and intervals on one axis, a row each, in HTML alone: text stays text on every screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxdistill.training._page import number, text

# An axis has at most so many numbers, which 390 pixels hold side by side.
_TICKS = 5
# So many times as far as seeds, means and margins spread an axis goes beyond them for intervals.
_BEYOND = 1.5


class Strip(NamedTuple):
    """A row.

    Attributes:
        name: HTML.
        value: what stands at its end, HTML.
        points: drawn as dots.
        mean: None for none.
        interval: None for none.
        margin: where a mark stands, None for none.
        tone: a class of the page's colours.
    """

    name: str
    value: str = ""
    points: Sequence[float] = ()
    mean: float | None = None
    interval: tuple[float, float] | None = None
    margin: float | None = None
    tone: str = ""


def strips(rows: Sequence[Strip], zero: bool = False) -> str:
    """Rows above their common axis.

    Args:
        rows: what is drawn; values that are not finite are left out. Intervals that are many times
            as wide as all that they are of go on beyond the ends of the axis, see :func:`reaches`.
        zero: whether zero is on the axis and marked.
    """
    low, high = _span(rows, zero)

    def at(value: float) -> str:
        return f"{100 * (min(max(value, low), high) - low) / (high - low):.2f}%"

    cells = []
    for row in rows:
        marks = [_mark("zero", at(0.0))] if zero else []
        if row.margin:
            marks.append(_mark("margin", at(row.margin)))
        if row.interval and all(map(math.isfinite, row.interval)):
            marks.append(_band("band" if row.points else "interval", *map(at, row.interval)))
        marks += [_mark("dot", at(point)) for point in row.points if math.isfinite(point)]
        if row.mean is not None and math.isfinite(row.mean):
            marks.append(_mark("mean" if row.points else "centre", at(row.mean)))
        track = f'<div class="track" role="img" aria-label="{_said(row)}">{"".join(marks)}</div>'
        # On narrow screens name and value stand side by side, and the track below them.
        cells.append(
            f'<div class="strip {row.tone}"><div class="name">{row.name}</div>{track}'
            f'<div class="value">{row.value}</div></div>'
        )
    places, shown = ticks(low, high)
    axis = "".join(
        f'<span style="left: {at(place)}">{words}</span>'
        for place, words in zip(places, shown, strict=True)
    )
    return f'<div class="strips">{"".join(cells)}<div class="axis">{axis}</div></div>'


def reaches(rows: Sequence[Strip], zero: bool = False) -> bool:
    """Whether an interval goes on beyond the axis."""
    low, high = _span(rows, zero)
    return any(min(_values(row)) < low or max(_values(row)) > high for row in rows if _values(row))


def _span(rows: Sequence[Strip], zero: bool) -> tuple[float, float]:
    """From where to where the axis goes."""
    told = [value for row in rows for value in _values(row._replace(interval=None))] + [0.0] * zero
    values = [*told, *(value for row in rows for value in _values(row))]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if told and (spread := max(told) - min(told)):
        low = max(low, min(told) - _BEYOND * spread)
        high = min(high, max(told) + _BEYOND * spread)
    return (low, high) if low < high else (low - abs(low or 1) / 10, high + abs(high or 1) / 10)


def ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Round numbers from ``low`` to ``high``, at most five, and how they are written.

    Example:
        >>> ticks(-0.013, 0.118)
        ([0.0, 0.025, 0.05, 0.075, 0.1], ['0', '0.025', '0.050', '0.075', '0.100'])
    """
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10, 20) if _count(low, high, power * m) <= _TICKS)
    first = math.ceil(low / step - 1e-9)
    places = [round((first + n) * step, 12) for n in range(_count(low, high, step))]
    mantissa = f"{step:.10f}".rstrip("0").partition(".")[2]
    shown = [f"{p:,.{len(mantissa)}f}" if p else "0" for p in places]
    if any(len(words) > 8 for words in shown):
        shown = [f"{p:.3g}" for p in places]
    return places, [words.replace("-", "−") for words in shown]


def _count(low: float, high: float, step: float) -> int:
    return math.floor(high / step + 1e-9) - math.ceil(low / step - 1e-9) + 1


def _mark(kind: str, left: str) -> str:
    return f'<i class="{kind}" style="left: {left}"></i>'


def _band(kind: str, left: str, right: str) -> str:
    return f'<i class="{kind}" style="left: {left}; right: calc(100% - {right})"></i>'


def _values(row: Strip) -> list[float]:
    found = [*row.points, *(row.interval or ())]
    found += [value for value in (row.mean, row.margin) if value is not None]
    return [float(value) for value in found if math.isfinite(value)]


def _said(row: Strip) -> str:
    """What is drawn, in words."""
    parts = []
    if row.points:
        parts.append(f"values {', '.join(map(number, row.points))}")
    if row.mean is not None:
        parts.append(f"mean {number(row.mean)}")
    if row.interval:
        parts.append(f"interval {number(row.interval[0])} to {number(row.interval[1])}")
    if row.margin:
        parts.append(f"margin {number(row.margin)}")
    return text("; ".join(parts) or "no values")
