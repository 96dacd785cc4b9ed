"""What stands at the top of a report: what was distilled into what, and how good and how large
both are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxdistill.training import _page as html
from jaxdistill.training.meaning import meaning, measured_on, plain_words


class _Column(NamedTuple):
    key: str
    title: str
    shown: Callable[[Any], str]
    better: str = ""


_COLUMNS = (
    _Column("records", "records", html.number),
    _Column("parameters", "parameters", html.short),
    _Column("operations", "operations", html.short, "lower"),
    _Column("seconds", "latency", html.duration_of, "lower"),
    _Column("bytes", "size", lambda value: html.short(value, "B"), "lower"),
)
# What is compared with what: the student of a model, of a set.
_ROLES = (("student", "teacher"), ("small set", "real data"))


def answer(said: Mapping[str, Any]) -> str:
    """The card on top of a report, see :func:`jaxdistill.training.report.write_report`."""
    rows = said.get("rows") or []
    if not rows:
        return ""
    metrics = said.get("metrics") or []
    columns = [column for column in _COLUMNS if any(column.key in row for row in rows)]
    header = [""]
    header += [html.text(measured_on(m)) + html.better(meaning(m).better) for m in metrics]
    header += [column.title + html.better(column.better) for column in columns]
    lines = [_line(row, metrics, columns) for row in rows]
    notes = [html.text(said["note"])] if said.get("note") else []
    pair = _pair(rows)
    if pair is not None:
        lines.append(_against(*pair, metrics, columns))
    table = html.table(header, lines, kind="wide compared" if pair else "wide")
    return html.card(_path(said), table, *(f'<p class="facts">{note}</p>' for note in notes))


def _path(said: Mapping[str, Any]) -> str:
    """From what into what, and how."""
    parts = [_named(each) for each in said.get("from") or ()]
    start = " <i>and</i> ".join(parts)
    into = _named(said["into"]) if said.get("into") else ""
    arrow = "<i>distilled into</i>" if start and into else ""
    then = "".join(f" <i>then</i> {_named(each)}" for each in said.get("then") or ())
    how = f'<p class="soft">{html.text(said["how"])}</p>' if said.get("how") else ""
    return f'<p class="path">{start} {arrow} {into}{then}</p>{how}' if into else ""


def _named(each: Mapping[str, Any]) -> str:
    what = f" <i>{html.text(each['what'])}</i>" if each.get("what") else ""
    return f"<span><b>{html.text(plain_words(each['name']))}</b>{what}</span>"


def _line(row: Mapping[str, Any], metrics: Sequence[str], columns: Sequence[_Column]) -> list[str]:
    soft = ", ".join(part for part in (row.get("role"), row.get("what")) if part)
    at = row.get("at")
    steps = "" if at is None else f", {at}\N{NO-BREAK SPACE}step{'s' if at != 1 else ''}"
    title = f"<b>{html.text(plain_words(row['name']))}{steps}</b>"
    title += f'<span class="soft">{html.text(soft)}</span>' if soft else ""
    values, intervals = row.get("values") or {}, row.get("intervals") or {}
    cells = [title]
    for metric in metrics:
        cell = html.number(values.get(metric))
        if metric in intervals:
            low, high = intervals[metric]
            cell += f'<span class="soft">[{html.number(low)}, {html.number(high)}]</span>'
        cells.append(cell)
    return cells + [column.shown(row.get(column.key)) for column in columns]


def _pair(rows: Sequence[Mapping[str, Any]]) -> tuple[Any, Any] | None:
    """The first row of what was distilled and the last of what it became."""
    for roles in _ROLES:
        ours, theirs = ([row for row in rows if row.get("role") == role] for role in roles)
        if ours and theirs:
            return theirs[0], ours[-1]
    return None


def _against(
    teacher: Mapping[str, Any],
    student: Mapping[str, Any],
    metrics: Sequence[str],
    columns: Sequence[_Column],
) -> list[str]:
    """By how much the student is better or worse, and what share of the costs it has."""
    cells = [html.text(f"{student['role']} against {teacher['role']}")]
    for metric in metrics:
        ours, theirs = (_number(row.get("values") or {}, metric) for row in (student, teacher))
        cells.append("–" if ours is None or theirs is None else _signed(ours - theirs))
    for column in columns:
        ours, theirs = (_number(row, column.key) for row in (student, teacher))
        if ours is None or not theirs:
            cells.append("–")
        else:
            cells.append(f"{_digits(100 * ours / theirs)} %")
    return cells


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _signed(value: float) -> str:
    return f"+{html.number(value)}" if value > 0 else html.number(value)
