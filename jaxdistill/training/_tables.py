"""The tables of a report: its stages, and what each of them measured at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxdistill.progress import duration
from jaxdistill.training import _page as html
from jaxdistill.training._curves import UNDRAWN
from jaxdistill.training.meaning import meaning, plain_words


def tables(report: Mapping[str, Any]) -> str:
    """All tables of a report, see :func:`jaxdistill.training.report.write_report`."""
    stages = report.get("stages") or []
    parts = [_stages(stages)] if stages else []
    columns = _columns(report)
    parts += [_values(part, columns) for part in _sets(columns)]
    return f"<h2>Tables</h2>{''.join(parts)}" if parts else ""


def _stages(stages: Sequence[Mapping[str, Any]]) -> str:
    known = {
        "what": "trains",
        "learns_from": "learns from",
        "steps": "steps",
        "seconds": "time",
        "rate": "steps a second",
        "parameters": "parameters",
        "records": "records",
    }
    rows = [{**stage, "rate": _rate(stage)} for stage in stages]
    keys = [key for key in known if any(row.get(key) is not None for row in rows)]
    lines = [[_title(row), *(_cell(key, row.get(key)) for key in keys)] for row in rows]
    words = [1 + keys.index(key) for key in ("what", "learns_from") if key in keys]
    header = ["stage", *(known[key] for key in keys)]
    return html.folded("Stages", html.table(header, lines, words, "wide"), unfolded=True)


def _title(stage: Mapping[str, Any]) -> str:
    note = f'<span class="soft">{html.text(stage["note"])}</span>' if stage.get("note") else ""
    return f"<b>{html.text(plain_words(stage['name']))}</b>{note}"


def _rate(stage: Mapping[str, Any]) -> float | None:
    steps, seconds = stage.get("steps"), stage.get("seconds")
    return steps / seconds if steps and seconds else None


def _cell(key: str, value: Any) -> str:
    if value is None or value == "":
        return "–"
    if key in ("what", "learns_from"):
        return html.text(value)
    if key == "rate":
        return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    return duration(value) if key == "seconds" else html.number(value)


def _columns(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By stage its last values, as ``<set>/<metric>``."""
    columns: dict[str, dict[str, Any]] = {}
    for stage in report.get("stages") or ():
        own = columns.setdefault(stage["name"], {})
        for line in stage.get("evaluations") or ():
            own |= {f"{line['set']}/{k}": v for k, v in line.items() if k not in UNDRAWN}
        for line in stage.get("metrics") or ():
            own |= {f"train/{k}": v for k, v in line.items() if k not in UNDRAWN}
    for row in report.get("summary") or ():
        own = columns.setdefault(row.get("model", ""), {})
        own |= {k: v for k, v in row.items() if k != "model" and k not in own}
    return columns


def _sets(columns: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The sets that something was measured on, training last."""
    found = dict.fromkeys(_set(name) for own in columns.values() for name in own)
    return sorted(found, key=lambda part: part.startswith("train"))


def _set(name: str) -> str:
    return name.rpartition("/")[0]


def _values(part: str, columns: Mapping[str, Mapping[str, Any]]) -> str:
    own = {
        stage: {name: value for name, value in values.items() if _set(name) == part}
        for stage, values in columns.items()
    }
    own = {stage: values for stage, values in own.items() if values}
    names = dict.fromkeys(name for values in own.values() for name in values)
    rows = [
        [
            html.text(meaning(name).words) + html.better(meaning(name).better),
            *(html.number(values.get(name)) for values in own.values()),
        ]
        for name in names
    ]
    header = ["", *(html.text(plain_words(stage)) for stage in own)]
    return html.folded(html.text(_titled(part)), html.table(header, rows), unfolded=part == "test")


def _titled(part: str) -> str:
    """What a table of values is headed."""
    teacher, colon, part = part.rpartition(":")
    first, _, span = part.partition("/")
    titles = {"train": "Training, at the end", "": "Values"}
    title = titles.get(first, f"{plain_words(first).capitalize()} set, at the end")
    if first == "train" and span:
        title = f"Training, mean over {plain_words(span)}"
    elif span == "mean":
        title = f"{plain_words(first).capitalize()} set, mean over the run"
    who = plain_words(teacher)
    return f"{title}: {who if who.startswith('teacher') else f'teacher {who}'}" if colon else title
