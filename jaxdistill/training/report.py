"""Reports of runs and claims: JSON with every number, and one page of HTML that needs nothing else.

A report is plain data:

- ``title``, ``sentence`` (what it is about), ``command`` (what made it), ``created`` (a date)
- ``answer``: what stands on top: ``{"from": [{"name", "what"}], "into": {"name", "what"}, "then":
  [{"name", "what"}], "how", "metrics": ["test/accuracy"], "rows": [...], "note"}``. A row is
  ``{"name", "what", "role", "values": {metric: value}}``, with ``"intervals": {metric: (low,
  high)}`` where there are seeds, and with whichever are known of ``"at"`` (steps of a sampler),
  ``"records"``, ``"parameters"``, ``"operations"``, ``"seconds"`` and ``"bytes"``. The last row of
  the role ``student`` is compared with the first of the role ``teacher``, and likewise ``small
  set`` with ``real data``.
- ``config``: nested data
- ``environment``: see :func:`environment`
- ``stages``: a list of ``{"name", "what", "learns_from", "steps", "seconds", "parameters" or
  "records", "note", "metrics", "evaluations", "learning_rate"}``. ``metrics`` are the lines of
  training, ``{"step": 10, "loss": 0.5, ...}``, and ``evaluations`` those of evaluation,
  ``{"step": 10, "set": "validation", "accuracy": 0.9, ...}``; ``learning_rate`` is a pair of steps
  and values.
- ``summary``: a list of ``{"model": "teacher", "test/accuracy": 0.98, ...}``
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
from jaxdistill.training import _claim as claims
from jaxdistill.training import _curves as curves
from jaxdistill.training import _drawing as drawing
from jaxdistill.training import _page as html
from jaxdistill.training import _tables as tables
from jaxdistill.training._answer import answer
from jaxdistill.training._environment import environment

__all__ = ["Picture", "environment", "plain", "write_claim", "write_report"]


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
    said, stages = report.get("answer") or {}, report.get("stages") or []
    body = [_head(report), answer(said), _claim_section(report)]
    if drawing.available():
        body.append(curves.curves(stages, said.get("metrics") or ()))
    body += [_pictures(pictures, report), tables.tables(report), _made(report)]
    page = html.page(report["title"], "\n".join(part for part in body if part) + _foot("report"))
    return _write(Path(directory), "report", report, page)


def write_claim(directory: Path | str, claim: Mapping[str, Any]) -> Path:
    """Writes ``claim.json`` and ``claim.html``: what was claimed, measured and found.

    Args:
        directory: where to; made if it is not there.
        claim: ``{"title", "sentence", "held_equal": [...], "metric", "seeds": [...],
            "arms": {arm: [a value a seed]}, "contrasts": {name: {"sentence", "metric",
            "coefficients": {arm: weight}, "margin", "mean", "low", "high", "confidence",
            "verdict"}}, "verdict"}``, and optionally ``"differences": [one a seed]`` and
            ``"margin_from"`` of a contrast, ``"intervals": {arm: (mean, low, high)}``, drawn
            beside the arms, ``"notes": [sentences]``, and ``"command"``, ``"created"``,
            ``"config"`` and ``"environment"`` as in a report.

    Returns:
        The path of the page.

    Raises:
        TypeError: for a value that JSON does not know, with its path.
    """
    claim = plain(claim)
    title = claim.get("title") or "Claim"
    body = [_head({**claim, "title": title, "sentence": ""}), claims.claim(claim), _made(claim)]
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
    seeds = report.get("seeds") or ()
    facts = [
        html.text(report.get("created") or ""),
        f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}" if seeds else "",
        duration(sum(seconds)) if seconds else "",
        html.text(env.get("devices", "")),
        f"jax {html.text(env['jax'])}" if env.get("jax") else "",
        f"commit {html.text(str(env['commit'])[:12])}" if env.get("commit") else "",
    ]
    lead = report.get("sentence")
    return (
        f"<h1>{html.text(report['title'])}</h1>"
        + (f'<p class="lead">{html.text(lead)}</p>' if lead else "")
        + html.facts(*facts)
    )


def _foot(name: str) -> str:
    return f'<footer>All numbers: <a href="{name}.json">{name}.json</a></footer>'


def _pictures(pictures: Sequence[Picture], report: Mapping[str, Any]) -> str:
    draw: dict[str, Callable[[Any], str]] = {
        "images": drawing.images,
        "reliability": drawing.reliability,
    }
    for picture in pictures:
        if picture.kind not in (*draw, "curves"):
            raise ValueError(unknown("kind of picture", picture.kind, (*draw, "curves")))
    if not pictures and (drawing.available() or not report.get("stages")):
        return ""
    if not drawing.available():
        return f"<h2>Pictures</h2>{drawing.MISSING}"
    cards, charts = [], []
    for picture in pictures:
        if picture.kind == "curves":
            charts += [
                f'<div><p class="facts">{html.text(picture.title)}</p>{chart}</div>'
                for chart in _curves(picture.data)
            ]
        else:
            cards.append(html.card(_titled(picture.title, draw[picture.kind](picture.data))))
    if charts:
        cards.append(html.card(f'<div class="charts">{"".join(charts)}</div>'))
    return f"<h2>Pictures</h2>{''.join(cards)}"


def _titled(title: str, picture: str) -> str:
    return f"<figure><figcaption><b>{html.text(title)}</b></figcaption>{picture}</figure>"


def _curves(charts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [_named_chart(title, lines) for title, lines in charts.items()]


def _named_chart(title: str, lines: Mapping[str, Any]) -> str:
    """A title «errors by weight» names both axes."""
    series = [drawing.Series(name, *line) for name, line in lines.items()]
    y, _, x = title.rpartition(" by ")
    return drawing.chart(title, series, x=x, y=y) if y else drawing.chart(title, series)


def _claim_section(report: Mapping[str, Any]) -> str:
    return f"<h2>Claim</h2>{claims.claim(report['claim'])}" if report.get("claim") else ""


def _made(report: Mapping[str, Any]) -> str:
    """How the report came to be: the command, the config and the environment, folded."""
    parts = []
    if report.get("command"):
        parts.append(html.folded("Command", f"<pre>{html.text(report['command'])}</pre>"))
    if report.get("config"):
        tree = f'<div class="tree">{html.tree(report["config"])}</div>'
        parts.append(html.folded("Config", tree))
    if report.get("environment"):
        rows = [[html.text(k), html.text(v)] for k, v in report["environment"].items()]
        table = html.table(["", ""], rows, words=(1,))
        parts.append(html.folded("Environment", table))
    return f"<h2>How it was made</h2>{''.join(parts)}" if parts else ""
