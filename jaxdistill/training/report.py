"""Reports of runs and claims: JSON with every number, and one page of HTML that needs nothing else.

A report is plain data:

- ``title``, ``sentence`` (what it is about), ``command`` (what made it), ``created`` (a date)
- ``config``: nested data
- ``environment``: see :func:`environment`
- ``stages``: a list of ``{"name", "steps", "seconds", "parameters" or "records", "note", "metrics",
  "evaluations"}``. ``metrics`` are the lines of training, ``{"step": 10, "loss": 0.5, ...}``, and
  ``evaluations`` those of evaluation, ``{"step": 10, "set": "validation", "accuracy": 0.9, ...}``.
- ``summary``: a list of ``{"model": "teacher", "accuracy": 0.98, ...}``
- ``claim``: see :func:`write_claim`

Only ``title`` must be there. In the JSON a float that is not finite is a string, ``"nan"``,
``"inf"`` or ``"-inf"``, which ``float`` reads; numpy numbers and arrays become numbers and lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill._files import write_json
from jaxdistill.progress import duration
from jaxdistill.training import _drawing as drawing
from jaxdistill.training import _page as html
from jaxdistill.training._environment import environment

__all__ = ["Picture", "environment", "plain", "write_claim", "write_report"]

# Metrics that say nothing as a curve.
_UNDRAWN = ("step", "set", "kind", "steps_per_second")
_PREFIX = "teacher_"


class Picture(NamedTuple):
    """A picture of a report.

    Attributes:
        title: its heading.
        kind: ``"images"``, ``"reliability"`` or ``"curves"``.
        data: for images ``{row label: [columns, H, W, C]}`` in [0, 1], C being 1 or 3; for a
            reliability diagram ``{model: (count, confidence, accuracy)}``, each ``[bins]``, as
            :func:`jaxdistill.evaluation.reliability` gives; for curves
            ``{chart: {line: (x, y)}}``.
    """

    title: str
    kind: str
    data: Mapping[str, Any]


def write_report(
    directory: Path | str, report: Mapping[str, Any], pictures: Sequence[Picture] = ()
) -> Path:
    """Writes ``report.json`` and ``report.html``, each whole or not at all.

    Without matplotlib the page says how to install it in place of pictures and curves.

    Args:
        directory: where to; made if it is not there.
        report: see the head of this module.
        pictures: images and diagrams; curves of metrics are drawn without being asked for.

    Returns:
        The path of the page.

    Raises:
        ValueError: for a picture of an unknown kind, or data that does not fit its kind.
        TypeError: for a value that JSON does not know, with its path.
    """
    report = plain(report)
    body = [_head(report), _summary(report), _claim_section(report)]
    body += [_pictures(pictures, report), _stages(report), _config(report), _environment(report)]
    page = html.page(report["title"], "\n".join(part for part in body if part) + _foot("report"))
    return _write(Path(directory), "report", report, page)


def write_claim(directory: Path | str, claim: Mapping[str, Any]) -> Path:
    """Writes ``claim.json`` and ``claim.html``: what was claimed, measured and found.

    Args:
        directory: where to; made if it is not there.
        claim: ``{"title", "sentence", "held_equal": [...], "metric", "seeds": [...],
            "arms": {arm: [a value a seed]}, "contrasts": {name: {"sentence", "metric",
            "coefficients": {arm: weight}, "margin", "mean", "low", "high", "confidence",
            "verdict"}}, "verdict"}``, and optionally ``"intervals": {arm: (mean, low, high)}``,
            drawn beside the arms, ``"command"``, ``"created"``, ``"config"`` and
            ``"environment"`` as in a report.

    Returns:
        The path of the page.

    Raises:
        TypeError: for a value that JSON does not know, with its path.
    """
    claim = plain(claim)
    title = claim.get("title") or "Claim"
    body = [_head({**claim, "title": title, "sentence": ""}), _claim(claim)]
    body += [_config(claim), _environment(claim)]
    page = html.page(title, "\n".join(part for part in body if part) + _foot("claim"))
    return _write(Path(directory), "claim", claim, page)


def plain(value: Any, path: str = "") -> Any:
    """Data as strict JSON knows it: see the head of this module.

    Raises:
        TypeError: for anything else, with its path.

    Example:
        >>> plain({"loss": np.float32(0.5), "bad": float("nan"), "shape": (2, 3)})
        {'loss': 0.5, 'bad': 'nan', 'shape': [2, 3]}
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v, f"{path}.{k}" if path else str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, f"{path}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return plain(np.asarray(value).tolist(), path)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{path or 'the value'} is no plain data: {type(value).__name__} {value!r}")


def _write(directory: Path, name: str, data: Any, page: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / f"{name}.json", data)
    path = directory / f"{name}.html"
    html.write(path, page)
    return path


def _head(report: Mapping[str, Any]) -> str:
    env = report.get("environment") or {}
    seconds = [s["seconds"] for s in report.get("stages", ()) if s.get("seconds")]
    facts = [
        html.text(report.get("created") or ""),
        duration(sum(seconds)) if seconds else "",
        html.text(env.get("devices", "")),
        f"jax {html.text(env['jax'])}" if env.get("jax") else "",
        f"commit {html.text(str(env['commit'])[:12])}" if env.get("commit") else "",
    ]
    return (
        f"<h1>{html.text(report['title'])}</h1>"
        + (f'<p class="lead">{html.text(report["sentence"])}</p>' if report.get("sentence") else "")
        + html.facts(*facts)
        + (f"<pre>{html.text(report['command'])}</pre>" if report.get("command") else "")
    )


def _foot(name: str) -> str:
    return f'<footer>All numbers: <a href="{name}.json">{name}.json</a></footer>'


def _summary(report: Mapping[str, Any]) -> str:
    rows = report.get("summary") or []
    if not rows:
        return ""
    metrics = dict.fromkeys(name for row in rows for name in row if name != "model")
    header = ["", *(html.text(row.get("model", "")) for row in rows)]
    lines = [[html.text(m), *(html.number(row.get(m)) for row in rows)] for m in metrics]
    return "<h2>Summary</h2>" + html.card(html.table(header, lines), narrow=True)


def _pictures(pictures: Sequence[Picture], report: Mapping[str, Any]) -> str:
    draw: dict[str, Callable[[Any], str]] = {
        "images": drawing.images,
        "reliability": drawing.reliability,
        "curves": _curves,
    }
    for picture in pictures:
        if picture.kind not in draw:
            raise ValueError(unknown("kind of picture", picture.kind, draw))
    if not pictures and (drawing.available() or not report.get("stages")):
        return ""
    cards = [drawing.MISSING]
    if drawing.available():
        cards = [html.card(_titled(p.title, draw[p.kind](p.data))) for p in pictures]
    return f"<h2>Pictures</h2>{''.join(cards)}"


def _titled(title: str, picture: str) -> str:
    return f"<figure><figcaption><b>{html.text(title)}</b></figcaption>{picture}</figure>"


def _curves(charts: Mapping[str, Mapping[str, Any]]) -> str:
    drawn = [
        drawing.chart(title, [drawing.Series(name, *line) for name, line in lines.items()])
        for title, lines in charts.items()
    ]
    return f'<div class="charts">{"".join(drawn)}</div>'


def _stages(report: Mapping[str, Any]) -> str:
    stages = report.get("stages") or []
    return "<h2>Stages</h2>" + "".join(map(_stage, stages)) if stages else ""


def _stage(stage: Mapping[str, Any]) -> str:
    steps, seconds, parameters = (stage.get(k) for k in ("steps", "seconds", "parameters"))
    rate = steps / seconds if steps and seconds else None
    facts = [
        f"{html.number(steps)} steps" if steps is not None else "",
        duration(seconds) if seconds is not None else "",
        f"{html.number(rate)} steps/s" if rate else "",
        f"{html.number(parameters)} parameters" if parameters is not None else "",
        f"{html.number(stage['records'])} records" if "records" in stage else "",
    ]
    note = f"<p>{html.text(stage['note'])}</p>" if stage.get("note") else ""
    metrics, evaluations = stage.get("metrics") or [], stage.get("evaluations") or []
    lines = _lines(metrics, evaluations) if drawing.available() else []
    charts = "".join(drawing.chart(title, series) for title, series in lines)
    curves = f'<div class="charts">{charts}</div>' if charts else ""
    return html.card(
        f"<h3>{html.text(stage['name'])}</h3>",
        html.facts(*facts),
        note,
        curves,
        _last_values(metrics, evaluations),
    )


def _lines(metrics: Sequence[Any], evaluations: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """What is drawn of a stage: a chart a metric, a teacher's metric beside the student's own."""
    sets = dict.fromkeys(line["set"] for line in evaluations)
    sources = [("train", metrics)]
    sources += [(name, [line for line in evaluations if line["set"] == name]) for name in sets]
    names = dict.fromkeys(k for _, lines in sources for line in lines for k in line)
    charts: dict[str, list[Any]] = {}
    for name in names:
        base = name.removeprefix(_PREFIX)
        theirs = name != base and base in names
        for source, lines in sources:
            points = [(line["step"], line[name]) for line in lines if _drawable(name, line)]
            if len(points) > 1:
                label = f"teacher, {source}" if theirs else source
                x, y = zip(*points, strict=True)
                chart = charts.setdefault(base if theirs else name, [])
                chart.append(drawing.Series(label, x, y, dashed=theirs))
    for chart in charts.values():
        dashed = [place for place, series in enumerate(chart) if series.dashed]
        if len(dashed) == 1:
            chart[dashed[0]] = chart[dashed[0]]._replace(label="teacher")
    return list(charts.items())


def _drawable(name: str, line: Mapping[str, Any]) -> bool:
    value = line.get(name)
    return name not in _UNDRAWN and isinstance(value, (int, float)) and not isinstance(value, bool)


def _last_values(metrics: Sequence[Any], evaluations: Sequence[Any]) -> str:
    columns: dict[str, dict[str, Any]] = {}
    for name, lines in (("training", metrics), (None, evaluations)):
        for line in lines:
            kept = {k: v for k, v in line.items() if k not in _UNDRAWN}
            columns.setdefault(name or line["set"], {}).update(kept)
    if not columns:
        return ""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [[html.text(n), *(html.number(c.get(n)) for c in columns.values())] for n in names]
    table = html.table(["", *map(html.text, columns)], rows)
    unfolded = "" if drawing.available() else " open"
    return f"<details{unfolded}><summary>Last values</summary><div>{table}</div></details>"


def _config(report: Mapping[str, Any]) -> str:
    if not report.get("config"):
        return ""
    tree = f'<div class="tree">{html.tree(report["config"])}</div>'
    return f"<h2>Config</h2>{html.card(tree)}"


def _environment(report: Mapping[str, Any]) -> str:
    if not report.get("environment"):
        return ""
    rows = [[html.text(k), html.text(v)] for k, v in report["environment"].items()]
    table = html.table(["", ""], rows, words=(1,))
    return f"<h2>Environment</h2>{html.card(table, narrow=True)}"


def _claim_section(report: Mapping[str, Any]) -> str:
    return f"<h2>Claim</h2>{_claim(report['claim'])}" if report.get("claim") else ""


def _claim(claim: Mapping[str, Any]) -> str:
    seeds = claim.get("seeds") or []
    held = "; ".join(map(str, claim.get("held_equal") or ()))
    contrasts = claim.get("contrasts") or {}
    by_metric: dict[str, dict[str, Any]] = {}
    for name, contrast in contrasts.items():
        metric = contrast.get("metric") or claim.get("metric", "")
        by_metric.setdefault(metric, {})[name] = contrast
    metric = claim.get("metric", "")
    plots = [drawing.MISSING]
    if drawing.available():
        plots = [drawing.contrasts(m, found) for m, found in by_metric.items()]
        plots.insert(0, drawing.arms(metric, claim["arms"], claim.get("intervals") or {}))
    sentence = html.text(claim.get("sentence", ""))
    return (
        f'<p class="lead">{sentence} {_verdict(claim.get("verdict"))}</p>'
        + (f'<p class="soft">Held equal: {html.text(held)}.</p>' if held else "")
        + html.card(_contrasts(contrasts, metric))
        + html.card(*plots)
        + html.card(_arms(claim["arms"], seeds, metric), narrow=True)
    )


def _contrasts(contrasts: Mapping[str, Any], metric: str) -> str:
    rows = []
    for name, contrast in contrasts.items():
        weights = " ".join(_weighted(a, w) for a, w in (contrast.get("coefficients") or {}).items())
        words = contrast.get("sentence") or ""
        title = f"<b>{html.text(name)}</b>" + (f"<br>{html.text(words)}" if words else "")
        measured = f"{weights.removeprefix('+ ')}, in {contrast.get('metric') or metric}"
        title += f'<br><span class="soft">{html.text(measured)}</span>'
        interval = f"[{html.number(contrast['low'])}, {html.number(contrast['high'])}]"
        # Of several contrasts each interval has a confidence of its own.
        interval += f"<br>{html.number(100 * contrast.get('confidence', 0.95))} %"
        rows.append(
            [
                title,
                html.number(contrast["mean"]),
                interval,
                html.number(contrast.get("margin", 0)),
                _verdict(contrast.get("verdict")),
            ]
        )
    header = ["contrast", "mean", "interval", "margin", ""]
    return html.table(header, rows, words=(4,))


def _weighted(arm: str, weight: float) -> str:
    size = "" if abs(weight) == 1 else f"{abs(weight):g} "
    return f"{'−' if weight < 0 else '+'} {size}{arm}"


def _arms(arms: Mapping[str, Sequence[Any]], seeds: Sequence[Any], metric: str) -> str:
    count = max((len(values) for values in arms.values()), default=0)
    names = [f"seed {html.text(s)}" for s in seeds]
    names += [f"run {i + 1}" for i in range(len(names), count)]
    rows = []
    for arm, values in arms.items():
        mean = html.number(float(np.mean([float(v) for v in values])))
        cells = [html.number(v) for v in values] + ["–"] * (len(names) - len(values))
        rows.append([html.text(arm), *cells, f"<b>{mean}</b>"])
    return html.table([html.text(metric), *names, "mean"], rows)


def _verdict(verdict: str | None) -> str:
    if not verdict:
        return ""
    tone = html.text(verdict).replace(" ", "-")
    return f'<span class="verdict {tone}">{html.text(verdict)}</span>'
