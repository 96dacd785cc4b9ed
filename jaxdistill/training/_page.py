"""Pages of HTML that need nothing but themselves: no script, no network, light and dark."""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

CSS = """
:root {
  color-scheme: light dark;
  --paper: #f7f7f5; --card: #ffffff; --ink: #1c1e22; --soft: #6a6f78; --line: #dfe0e2;
  --first: #2f66c8; --second: #c8701c; --third: #23896a; --fourth: #8a4fb0;
  --good: #1d7f50; --bad: #bb3a2c; --open: #8a6400;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #141518; --card: #1c1e22; --ink: #e6e7e9; --soft: #979ca5; --line: #33363c;
    --first: #7fa8f5; --second: #eea55c; --third: #58c3a0; --fourth: #c59be6;
    --good: #5bc38d; --bad: #ee8377; --open: #d9b24c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 1060px; margin: 0 auto; padding: 48px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 10px; }
h2 { font-size: 19px; letter-spacing: -0.01em; margin: 44px 0 14px; }
h3 { font-size: 16px; margin: 0; }
p { margin: 0 0 12px; }
a { color: var(--first); }
.lead { font-size: 17px; color: var(--ink); max-width: 46em; }
.soft, figcaption, .facts, footer { color: var(--soft); }
.facts { font-size: 13.5px; }
.facts span + span::before { content: "\\00b7"; margin: 0 8px; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin: 0 0 16px; overflow-x: auto;
}
pre {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 14px; margin: 14px 0; overflow-x: auto;
}
pre, code { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 0 5px 28px; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; color: var(--soft); font-size: 13px; vertical-align: bottom; }
tr:last-child td { border-bottom: 0; }
td { white-space: nowrap; }
td:first-child { white-space: normal; }
td.text, th.text { text-align: left; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 13px; margin: 0 0 4px; display: flex; flex-wrap: wrap; gap: 2px 12px; }
figcaption b { color: var(--ink); font-weight: 600; }
.key::before {
  content: ""; display: inline-block; width: 9px; height: 9px; border-radius: 50%;
  margin-right: 5px; background: var(--key);
}
.charts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr));
  gap: 22px 24px; margin: 16px 0 4px;
}
.pair { display: flex; flex-wrap: wrap; gap: 20px 32px; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
svg * { stroke-linejoin: round; }
.images { display: grid; gap: 5px; align-items: center; justify-content: start; }
.images span { font-size: 13px; color: var(--soft); padding-right: 12px; text-align: right; }
.images img { display: block; width: 100%; border-radius: 3px; }
.images img.small { image-rendering: pixelated; }
.card > figure + figure { margin-top: 22px; }
.narrow { width: fit-content; max-width: 100%; }
.verdict {
  display: inline-block; padding: 1px 10px; border-radius: 999px; font-size: 13px;
  font-weight: 600; color: var(--tone); border: 1px solid var(--tone); white-space: nowrap;
}
.holds { --tone: var(--good); } .contradicted { --tone: var(--bad); }
.not-shown, .smaller-than-asked { --tone: var(--open); }
details { margin: 2px 0; }
details > div { margin: 2px 0 6px 5px; padding-left: 14px; border-left: 1px solid var(--line); }
summary { cursor: pointer; }
summary .soft { font-size: 13px; }
.tree { font: 13px/1.65 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.tree .name { color: var(--soft); }
.missing { border-left: 3px solid var(--open); padding-left: 12px; color: var(--soft); }
footer { margin-top: 48px; font-size: 13px; }
@media print { body { background: none; } .card { break-inside: avoid; } }
"""


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


def table(header: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already; the columns ``words`` are set to the left."""

    def row(cells: Sequence[str], tag: str) -> str:
        kind = [' class="text"' if place in words else "" for place in range(len(cells))]
        return "".join(f"<{tag}{k}>{c}</{tag}>" for c, k in zip(cells, kind, strict=True))

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    head = f"<thead><tr>{row(header, 'th')}</tr></thead>" if any(header) else ""
    return f"<table>{head}<tbody>{body}</tbody></table>"


def facts(*parts: str) -> str:
    """Short facts on one line; empty ones are left out. They are HTML already."""
    return '<p class="facts">' + "".join(f"<span>{p}</span>" for p in parts if p) + "</p>"


def card(*parts: str, narrow: bool = False) -> str:
    """Parts that belong together in a box, as wide as the page or as they are."""
    return f'<section class="card{" narrow" if narrow else ""}">{"".join(parts)}</section>'


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
