"""Which curves a report shows: a chart for every metric, all stages together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill.training import _drawing as drawing
from jaxdistill.training import _page as html
from jaxdistill.training.meaning import meaning, measured_on, plain_words

# Metrics that say nothing as a curve, and how many charts are shown before the others fold.
UNDRAWN = ("step", "set", "kind", "steps_per_second")
SHOWN = 6
_PREFIX = "teacher_"


def curves(stages: Sequence[Mapping[str, Any]], first: Sequence[str] = ()) -> str:
    """Charts of all that was measured more than once.

    Args:
        stages: of a report.
        first: the metrics, ``<set>/<name>``, that are shown before the others.
    """
    charts = _evaluated(stages)
    order = [name for name in first if name in charts]
    others = [name for name in charts if name not in order]
    order += sorted(others, key=lambda name: (not meaning(name).better, name.endswith("_best")))
    shown = [_chart(name, charts[name]) for name in order]
    rates = [
        drawing.Series(stage["name"], *stage["learning_rate"])
        for stage in stages
        if stage.get("learning_rate")
    ]
    # At its end a rate is next to nothing: its peak is what a config says.
    steps = [drawing.chart("learning rate", rates, told=max)] if rates else []
    trained = _trained(stages)
    # The loss and the rate are what a reader looks for; terms come after all that was evaluated.
    losses = [_chart(name, lines) for name, lines in trained.items() if name == "train/loss"]
    terms = [_chart(name, lines) for name, lines in trained.items() if name != "train/loss"]
    room = max(SHOWN - len(losses) - len(steps), 1)
    open_, rest = [*shown[:room], *losses, *steps], [*shown[room:], *terms]
    if len(open_) + len(rest) <= SHOWN:
        open_, rest = open_ + rest, []
    if not open_:
        return ""
    further = html.folded(f"{len(rest)} further curves", _grid(rest)) if rest else ""
    return f"<h2>Curves</h2>{html.card(_grid(open_))}{further}"


def _grid(charts: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(charts)}</div>'


def _chart(name: str, lines: Sequence[drawing.Series]) -> str:
    words = measured_on(name).replace(", train", ", training")
    arrow = html.better(meaning(name).better)
    return drawing.chart(words, lines, y=meaning(name).words, arrow=arrow)


def _evaluated(stages: Sequence[Mapping[str, Any]]) -> dict[str, list[drawing.Series]]:
    """By ``<set>/<name>`` a line a stage, and the level of its teacher."""
    charts: dict[str, list[drawing.Series]] = {}
    for stage in stages:
        lines = [line for line in stage.get("evaluations") or () if ":" not in line["set"]]
        for part in dict.fromkeys(line["set"] for line in lines):
            own = [line for line in lines if line["set"] == part]
            for name in dict.fromkeys(key for line in own for key in line):
                if not name.startswith(_PREFIX) and (pairs := points(name, own)):
                    series = drawing.Series(stage["name"], *pairs)
                    charts.setdefault(f"{part}/{name}", []).append(series)
    levels = _levels(stages)
    return {
        name: [*lines, *_drawn_levels(lines, levels.get(name, {}))]
        for name, lines in charts.items()
    }


def _levels(stages: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """By ``<set>/<name>`` what was measured just once, by stage: teachers before the student
    starts, and stages that are measured at their end alone."""
    found: dict[str, dict[str, float]] = {}
    for stage in stages:
        for line in stage.get("evaluations") or ():
            teacher, _, part = line["set"].rpartition(":")
            for key, value in line.items():
                if not _drawable(key, line):
                    continue
                theirs = key.startswith(_PREFIX)
                name = f"{part}/{key.removeprefix(_PREFIX)}"
                whose = "teacher" if theirs else teacher or stage["name"]
                # A teacher that is measured beside its student may have a stage that said the same.
                if not theirs or value not in found.get(name, {}).values():
                    found.setdefault(name, {})[whose] = value
    return found


def _drawn_levels(
    lines: Sequence[drawing.Series], levels: Mapping[str, float]
) -> list[drawing.Series]:
    ends = [0, max(max(line.x) for line in lines)]
    drawn = {line.label for line in lines}
    return [
        drawing.Series(name, ends, [value] * 2, dashed=True)
        for name, value in levels.items()
        if name not in drawn
    ]


def _trained(stages: Sequence[Mapping[str, Any]]) -> dict[str, list[drawing.Series]]:
    """By ``train/<name>`` a line a stage."""
    charts: dict[str, list[drawing.Series]] = {}
    for stage in stages:
        lines = stage.get("metrics") or []
        loss = points("loss", lines)
        for name in dict.fromkeys(key for line in lines for key in line):
            pairs = points(name, lines)
            # The only term of a loss is the loss.
            if pairs and (name == "loss" or loss is None or not _equal(pairs, loss)):
                series = drawing.Series(plain_words(stage["name"]), *pairs)
                charts.setdefault(f"train/{name}", []).append(series)
    return charts


def _equal(one: tuple[list[float], list[float]], other: tuple[list[float], list[float]]) -> bool:
    return one[0] == other[0] and bool(np.allclose(one[1], other[1], rtol=1e-5, atol=0))


def points(name: str, lines: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]] | None:
    """Steps and values of a metric; None where there are fewer than two."""
    found = [(line["step"], line[name]) for line in lines if _drawable(name, line)]
    if len(found) < 2:
        return None
    x, y = zip(*found, strict=True)
    return list(x), list(y)


def _drawable(name: str, line: Mapping[str, Any]) -> bool:
    value = line.get(name)
    return name not in UNDRAWN and isinstance(value, (int, float)) and not isinstance(value, bool)
