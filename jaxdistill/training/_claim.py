"""A claim as a page shows it: the verdict, every contrast against its margin, every seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill.training import _page as html
from jaxdistill.training._strips import Strip, reaches, strips
from jaxdistill.training.meaning import meaning, measured_on

_BEYOND = "; intervals that reach an end go on beyond it"


def claim(said: Mapping[str, Any]) -> str:
    """The parts of a claim, see :func:`jaxdistill.training.report.write_claim`."""
    metric = said.get("metric", "")
    held = "; ".join(map(str, said.get("held_equal") or ()))
    contrasts = said.get("contrasts") or {}
    notes = "".join(f"<p>{html.text(note)}</p>" for note in said.get("notes") or ())
    sentence = html.text(said.get("sentence", ""))
    return (
        f'<p class="lead">{sentence} {verdict(said.get("verdict"))}</p>'
        + (f'<p class="soft">Held equal: {html.text(held)}.</p>' if held else "")
        + "".join(html.card(*_differences(m, own)) for m, own in _by_metric(contrasts, metric))
        + html.card(*_arms(said["arms"], said.get("intervals") or {}, metric))
        + (html.card(f'<div class="soft">{notes}</div>') if notes else "")
        + html.folded("Contrasts in numbers", _contrast_table(contrasts, metric), unfolded=True)
        + html.folded(
            "Arms in numbers",
            _arm_table(said["arms"], said.get("seeds") or [], metric),
            unfolded=True,
        )
    )


def verdict(word: str | None) -> str:
    """The answer as a badge."""
    if not word:
        return ""
    return f'<span class="verdict {_tone(word)}">{html.text(word)}</span>'


def _tone(word: str | None) -> str:
    return html.text(word or "").replace(" ", "-")


def _by_metric(contrasts: Mapping[str, Any], metric: str) -> list[tuple[str, dict[str, Any]]]:
    found: dict[str, dict[str, Any]] = {}
    for name, contrast in contrasts.items():
        found.setdefault(contrast.get("metric") or metric, {})[name] = contrast
    return list(found.items())


def _differences(metric: str, contrasts: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, contrast in contrasts.items():
        words = contrast.get("sentence") or ""
        title = f"<b>{html.text(name)}</b> {verdict(contrast.get('verdict'))}"
        title += f"<br>{html.text(words)}" if words else ""
        title += f'<br><span class="soft">{html.text(_weighted(contrast))}</span>'
        interval = (float(contrast["low"]), float(contrast["high"]))
        rows.append(
            Strip(
                name=title,
                value=f"{html.number(contrast['mean'])}<br>{_interval(contrast)}",
                points=[float(value) for value in contrast.get("differences") or ()],
                mean=float(contrast["mean"]),
                interval=interval,
                margin=float(contrast.get("margin") or 0) or None,
                tone=_tone(contrast.get("verdict")),
            )
        )
    marks = "a dot for every seed, a bar at the mean, its interval behind it"
    if any(contrast.get("margin") for contrast in contrasts.values()):
        marks += "; the dashed line is the margin that the interval must lie above"
    marks += _BEYOND if reaches(rows, zero=True) else ""
    apart = any(len(contrast.get("coefficients") or ()) > 1 for contrast in contrasts.values())
    words = html.text(measured_on(metric))
    return [
        f"<h3>{f'Difference in {words}' if apart else words}</h3>",
        f'<p class="facts"><span>{marks}</span></p>',
        strips(rows, zero=True),
    ]


def _arms(
    arms: Mapping[str, Sequence[Any]], intervals: Mapping[str, Sequence[Any]], metric: str
) -> list[str]:
    rows = []
    for name, values in arms.items():
        points = [float(value) for value in values]
        mean = float(np.mean(points)) if points else None
        known = [float(value) for value in intervals.get(name, ())]
        rows.append(
            Strip(
                name=html.text(name),
                value=html.number(mean),
                points=points,
                mean=mean,
                interval=(known[1], known[2]) if known else None,
            )
        )
    arrow = html.better(meaning(metric).better)
    band = ", its 95 % interval behind it" if intervals else ""
    band += _BEYOND if reaches(rows) else ""
    return [
        f"<h3>Arms: {html.text(measured_on(metric))}{arrow}</h3>",
        f'<p class="facts"><span>a dot for every seed, a bar at the mean{band}</span></p>',
        strips(rows),
    ]


def _contrast_table(contrasts: Mapping[str, Any], metric: str) -> str:
    rows = []
    for name, contrast in contrasts.items():
        measured = measured_on(contrast.get("metric") or metric)
        title = f"<b>{html.text(name)}</b>"
        title += f'<span class="soft">{html.text(f"{_weighted(contrast)}, in {measured}")}</span>'
        margin = html.number(contrast.get("margin", 0))
        if origin := contrast.get("margin_from"):
            margin += f'<span class="soft">{html.text(origin)}</span>'
        # Of several contrasts each interval has a confidence of its own.
        confidence = f"{html.number(100 * contrast.get('confidence', 0.95))} %"
        answer = verdict(contrast.get("verdict"))
        mean = html.number(contrast["mean"])
        rows.append([title, mean, _interval(contrast), confidence, margin, answer])
    header = ["contrast", "mean", "interval", "confidence", "margin", "verdict"]
    return html.table(header, rows, words=(4, 5))


def _interval(contrast: Mapping[str, Any]) -> str:
    return f"[{html.number(contrast['low'])}, {html.number(contrast['high'])}]"


def _weighted(contrast: Mapping[str, Any]) -> str:
    """The arms of a contrast with their weights, what is better first."""
    parts = []
    weights = (contrast.get("coefficients") or {}).items()
    for arm, weight in sorted(weights, key=lambda pair: -pair[1]):
        size = "" if abs(weight) == 1 else f"{abs(weight):g} "
        parts.append(f"{'−' if weight < 0 else '+'} {size}{arm}")
    return " ".join(parts).removeprefix("+ ")


def _arm_table(arms: Mapping[str, Sequence[Any]], seeds: Sequence[Any], metric: str) -> str:
    count = max((len(values) for values in arms.values()), default=0)
    names = [f"seed {html.text(s)}" for s in seeds]
    names += [f"run {i + 1}" for i in range(len(names), count)]
    rows = []
    for arm, values in arms.items():
        mean = html.number(float(np.mean([float(v) for v in values]))) if values else "–"
        cells = [html.number(v) for v in values] + ["–"] * (len(names) - len(values))
        rows.append([html.text(arm), *cells, f"<b>{mean}</b>"])
    arrow = html.better(meaning(metric).better)
    return html.table([html.text(measured_on(metric)) + arrow, *names, "mean"], rows)
