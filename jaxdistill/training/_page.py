"""Pages of HTML that need nothing but themselves: no script, no network, light and dark."""

from __future__ import annotations

import html
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdistill.training._style import CSS


def page(title: str, body: str) -> str:
    """A whole document."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def text(value: Any) -> str:
    """Anything as text that is safe in HTML."""
    return html.escape(str(value))


def number(value: Any) -> str:
    """A value as text for people: four decimals, or digits, of a float, thousands set apart.

    Example:
        >>> number(0.95), number(-0.000123), number(31.41592), number(1234567), number(12.0)
        ('0.9500', '−0.000123', '31.42', '1,234,567', '12')
        >>> number("-inf"), number(None)
        ('−∞', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return text({"inf": "∞", "-inf": "−∞"}.get(str(value), value))
    if isinstance(value, int) or (math.isfinite(value) and value == int(value)):
        shown = f"{int(value):,}" if abs(value) < 1e12 else f"{value:.4g}"
    else:
        shown = f"{value:.4f}" if 1e-3 <= abs(value) < 10 else f"{value:.4g}"
    return f"−{shown[1:]}" if shown.startswith("-") else shown


def short(value: Any, unit: str = "") -> str:
    """A large count in three digits.

    Example:
        >>> print(short(228_164), short(9_594_104), short(912, "B"), short(912_656, "B"), sep=", ")
        228 k, 9.59 M, 912 B, 913 kB
    """
    if value is None or isinstance(value, str):
        return "–"
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{_digits(value / size)} {prefix}{unit}"
    return f"{_digits(value)} {unit}".strip()


def duration_of(seconds: float | None) -> str:
    """A short time in three digits.

    Example:
        >>> print(duration_of(0.000538), duration_of(0.25), duration_of(3.0), sep=", ")
        538 µs, 250 ms, 3 s
    """
    if seconds is None or isinstance(seconds, str):
        return "–"
    for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= 0.9995 * size or unit == "µs":
            return f"{_digits(seconds / size)} {unit}"
    raise AssertionError(seconds)


def _digits(value: float) -> str:
    """Three significant digits, without an exponent; whole numbers as they are."""
    if value == int(value):
        return f"{int(value)}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(places, 6)}f}"


def better(direction: str) -> str:
    """An arrow for which values are better, «higher» or «lower»; nothing where neither is."""
    if not direction:
        return ""
    arrow = {"higher": "↑", "lower": "↓"}[direction]
    said = f"{direction} is better"
    return (
        f'\u00a0<span class="better" role="img" aria-label="{said}" title="{said}">{arrow}</span>'
    )


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    words: Sequence[int] = (),
    kind: str = "",
) -> str:
    """A table of cells that are HTML already; the first of a row names it.

    On narrow screens one of more than three columns becomes a block for every row, in which every
    cell stands behind its column's name.

    Args:
        header: the names of the columns.
        rows: a cell for every column.
        words: columns that hold words, set to the left.
        kind: further classes.
    """
    labels = [text(html.unescape(re.sub(r"<[^>]*>", "", name))).strip() for name in header]

    def cell(place: int, content: str, tag: str) -> str:
        kinds = ["text"] * (place in words) + ["none"] * (content == "–")
        kind = f' class="{" ".join(kinds)}"' if kinds else ""
        if tag == "th":
            return f'<th scope="col"{kind}>{content}</th>'
        if place == 0:
            return f'<th scope="row"{kind}>{content}</th>'
        label = f' data-label="{labels[place]}"' if labels[place] else ""
        return f"<td{kind}{label}>{content}</td>"

    def row(cells: Sequence[str], tag: str) -> str:
        if len(cells) != len(header):
            raise ValueError(f"a row of {len(cells)} cells in a table of {len(header)} columns")
        return "".join(cell(place, content, tag) for place, content in enumerate(cells))

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    head = f"<thead><tr>{row(header, 'th')}</tr></thead>" if any(header) else ""
    kinds = " ".join(part for part in ("stack" if len(header) > 3 else "", kind) if part)
    return f'<table class="{kinds}">{head}<tbody>{body}</tbody></table>'


def facts(*parts: str) -> str:
    """Short facts on one line; empty ones are left out. They are HTML already."""
    return '<p class="facts">' + "".join(f"<span>{p}</span>" for p in parts if p) + "</p>"


def card(*parts: str, narrow: bool = False) -> str:
    """Parts that belong together in a box, as wide as the page or as they are."""
    return f'<section class="card{" narrow" if narrow else ""}">{"".join(parts)}</section>'


def folded(title: str, *parts: str, unfolded: bool = False) -> str:
    """Parts in a box that opens at its title."""
    state = " open" if unfolded else ""
    inner = f"<summary>{title}</summary><div>{''.join(parts)}</div>"
    return f'<details class="card"{state}>{inner}</details>'


def tree(value: Any) -> str:
    """Nested data as lines that unfold."""
    if isinstance(value, Mapping):
        entries: Iterable[tuple[Any, Any]] = value.items()
    else:
        entries = enumerate(value)
    lines = []
    for name, inner in entries:
        label = f'<span class="name">{text(name)}</span>'
        nested = isinstance(inner, Mapping) or (
            isinstance(inner, (list, tuple)) and any(isinstance(x, (dict, list)) for x in inner)
        )
        if nested and inner:
            size = f'<span class="soft">{len(inner)}</span>'
            lines.append(
                f"<details><summary>{label} {size}</summary><div>{tree(inner)}</div></details>"
            )
        else:
            shown = inner if isinstance(inner, str) else json.dumps(inner)
            lines.append(f"<div>{label}&ensp;{text(shown)}</div>")
    return "".join(lines)


def write(path: Path, document: str) -> None:
    """Writes a file under its final name at once, or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(document, encoding="utf-8")
    os.replace(part, path)
