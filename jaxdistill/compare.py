"""Runs side by side: the settings that differ, what came out, and the curves.

    jaxdistill compare runs/first runs/second --out=compare.html

A run that still goes on, or was stopped, is read as far as it came. The tables are printed; the
page has the curves too, and needs nothing but itself. No device is touched.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdistill._columns import aligned
from jaxdistill._command_flags import OUT
from jaxdistill._files import read_sealed
from jaxdistill.main import guarded
from jaxdistill.training import _drawing as drawing
from jaxdistill.training import _page as html
from jaxdistill.training.meaning import meaning, measured_on, plain_words
from jaxdistill.training.metrics import read_json_lines

# Of a config, what no run depends on.
_SAID = ("title", "sentence", "claim", "tune", "table", "variants")
_UNDRAWN = ("step", "kind", "steps_per_second")
# In a terminal a value is cut to this many letters; the page has all of it.
_LONGEST = 36
_ARROWS = {"higher": "↑", "lower": "↓", "": ""}


class Run(NamedTuple):
    """A run as far as it came.

    Attributes:
        name: what it is called here.
        config: as plain data.
        stages: the lines of metrics of every stage that has begun, in order.
        report: what ``report.json`` holds; nothing before the run is finished.
    """

    name: str
    config: Mapping[str, Any]
    stages: Mapping[str, Sequence[Mapping[str, Any]]]
    report: Mapping[str, Any]


def read(workdir: str | Path, name: str = "") -> Run:
    """Reads a working directory.

    Raises:
        ValueError: if no run was begun there, or several: those of a claim; if a file is damaged.
    """
    root = Path(workdir)
    if not (root / "config.json").exists():
        raise ValueError(f"{root} is no working directory of a run: it has no config.json")
    config = read_sealed(root / "config.json")
    stages = {}
    for stage in config["recipe"]:
        folders = [path for path in root.glob(f"stages/{stage}-*") if path.is_dir()]
        # Names of stages may begin alike: what follows is a hash, in which there is no dash.
        folders = [path for path in folders if path.name.rpartition("-")[0] == stage]
        if len(folders) > 1 or (root / "seeds").exists():
            raise ValueError(f"{root} holds a claim, many runs in one: see its claim.html")
        if folders:
            stages[stage] = read_json_lines(folders[0] / "metrics.jsonl")
    path = root / "report.json"
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return Run(name or root.name, config, stages, report)


def names_of(workdirs: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as tell them apart.

    Example:
        >>> names_of(["runs/a", "runs/b"]), names_of(["x/mae", "y/mae"])
        (['a', 'b'], ['x/mae', 'y/mae'])
    """
    parts = [Path(each).absolute().parts for each in workdirs]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-count:]) for own in parts]
        if len(set(names)) == len(names):
            break
    return names


def settings_that_differ(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The settings in which the configs of runs differ: for every path its value in each run.

    Example:
        >>> runs = [Run(str(n), {"stages": {"a": {"steps": n}}, "seed": 0}, {}, {}) for n in (3, 5)]
        >>> settings_that_differ(runs)
        {'stages.a.steps': ['3', '5']}
    """
    configs = [{k: v for k, v in run.config.items() if k not in _SAID} for run in runs]
    return dict(_differing(configs, ""))


_ABSENT = object()


def _differing(values: Sequence[Any], path: str) -> list[tuple[str, list[str]]]:
    if _same(values):
        return []
    if all(isinstance(value, Mapping) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        found = []
        for key in keys:
            inner = [value.get(key, _ABSENT) for value in values]
            found += _differing(inner, f"{path}.{key}" if path else str(key))
        return found
    return [(path, ["–" if value is _ABSENT else _shown(value) for value in values])]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def last_values(runs: Sequence[Run]) -> dict[str, dict[str, list[float | None]]]:
    """For every stage and metric the last value of each run; of training, its last line."""
    found: dict[str, dict[str, list[float | None]]] = {}
    for stage in _stages(runs):
        last = [{k: v for _, k, v in _points(run, stage)} for run in runs]
        metrics = dict.fromkeys(metric for values in last for metric in values)
        found[stage] = {m: [values.get(m) for values in last] for m in sorted(metrics, key=_place)}
    return {stage: values for stage, values in found.items() if values}


def curves(runs: Sequence[Run]) -> dict[str, dict[str, list[drawing.Series]]]:
    """For every stage and metric a line for each run that measured it more than once."""
    found: dict[str, dict[str, list[drawing.Series]]] = {}
    for stage in _stages(runs):
        charts: dict[str, list[drawing.Series]] = {}
        for run in runs:
            lines: dict[str, list[tuple[int, float]]] = {}
            for step, metric, value in _points(run, stage):
                lines.setdefault(metric, []).append((step, value))
            for metric, points in lines.items():
                if len(points) > 1:
                    x, y = zip(*points, strict=True)
                    charts.setdefault(metric, []).append(drawing.Series(run.name, x, y))
        found[stage] = {metric: charts[metric] for metric in sorted(charts, key=_place)}
    return {stage: charts for stage, charts in found.items() if charts}


def _stages(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(stage for run in runs for stage in run.stages))


def _points(run: Run, stage: str) -> list[tuple[int, str, float]]:
    """Every value that a run measured in a stage: step, metric, value."""
    found = []
    for line in run.stages.get(stage, ()):
        prefix = "training " if line["kind"] == "train" else ""
        for name, value in line.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            # What a teacher measures before the first step is no curve of this stage.
            if number and name not in _UNDRAWN and line["kind"] != "teacher":
                found.append((line["step"], prefix + name, float(value)))
    return found


def _place(metric: str) -> tuple[int, str]:
    """What one looks for first: the test set, validation, then training."""
    order = ("test/", "validation/", "training loss", "training ")
    places = [place for place, prefix in enumerate(order) if metric.startswith(prefix)]
    return (places[0] if places else len(order), metric)


def state_of(run: Run) -> str:
    """How far a run came."""
    if run.report:
        return "finished"
    begun = [stage for stage, lines in run.stages.items() if lines]
    if not begun:
        return "no step yet"
    steps = run.config["stages"][begun[-1]].get("steps", 0)
    return f"{begun[-1]}, step {run.stages[begun[-1]][-1]['step']} of {steps}"


def _facts(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """What each run is, a line each; what none of them says is left out."""

    def environment(run: Run, key: str) -> str:
        return str((run.report.get("environment") or {}).get(key, ""))

    def seconds(run: Run) -> str:
        taken = sum(stage.get("seconds") or 0.0 for stage in run.report.get("stages", ()))
        return f"{taken:,.0f} s" if taken else ""

    facts = [
        ("config", [str(run.config.get("title", "")) for run in runs]),
        ("state", [state_of(run) for run in runs]),
        ("made", [str(run.report.get("created", "")) for run in runs]),
        ("stages took", [seconds(run) for run in runs]),
        ("devices", [environment(run, "devices") for run in runs]),
        ("versions", [_versions(environment, run) for run in runs]),
    ]
    return [(name, values) for name, values in facts if any(values)]


def _versions(environment: Any, run: Run) -> str:
    found = [(name, environment(run, name)) for name in ("jaxdistill", "jax")]
    return ", ".join(f"{name} {version}" for name, version in found if version)


def text(runs: Sequence[Run]) -> str:
    """The tables as text; of stages that came out alike only that."""
    head = ("", *(_cut(run.name) for run in runs))
    parts = [aligned([head, *((name, *map(_cut, own)) for name, own in _facts(runs))])]
    settings = settings_that_differ(runs)
    rows = [(path, *map(_cut, values)) for path, values in settings.items()]
    parts.append("Settings that differ\n" + (aligned([head, *rows]) if rows else "  none"))
    for stage, metrics in last_values(runs).items():
        rows = [(_arrowed(metric), *_marked(metric, values)) for metric, values in metrics.items()]
        alike = all(map(_same, metrics.values()))
        table = "  the same in all runs" if alike else aligned([head, *rows], numbers=True)
        parts.append(f"Last values of {stage}\n{table}")
    return "\n\n".join(parts)


def _same(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _arrowed(metric: str) -> str:
    return f"{metric} {_ARROWS[_better(metric)]}".rstrip()


def _marked(metric: str, values: Sequence[float | None]) -> list[str]:
    """Values as text, a star behind the best."""
    best = _best(metric, values)
    return [_number(value) + ("*" if value == best is not None else " ") for value in values]


def _best(metric: str, values: Sequence[float | None]) -> float | None:
    """The best of values that differ; nothing where nobody knows which is better."""
    better, known = _better(metric), [v for v in values if v is not None]
    if not better or _same(known) or not all(map(math.isfinite, known)):
        return None
    return max(known) if better == "higher" else min(known)


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…"


def _number(value: float | None) -> str:
    return "–" if value is None else html.number(value if math.isfinite(value) else str(value))


def page(runs: Sequence[Run]) -> str:
    """The page: what differs first, then of every stage, the last one first, what came out and the
    curves."""
    facts = _facts(runs)
    body = [f"<h1>{html.text(' · '.join(run.name for run in runs))}</h1>"]
    body.append(html.facts(*(html.text(values[0]) for _, values in facts if _same(values))))
    differing = [(name, values) for name, values in facts if not _same(values)]
    body.append(_words(runs, differing) if differing else "")
    settings = list(settings_that_differ(runs).items())
    body.append("<h2>Settings that differ</h2>")
    body.append(_words(runs, settings) if settings else html.card("<p>None.</p>"))
    body.append("<h2>Stages</h2>")
    drawn = curves(runs)
    if drawn and not drawing.available():
        body.append(drawing.MISSING)
    for stage, metrics in reversed(last_values(runs).items()):
        body.append(_stage(runs, stage, metrics, drawn.get(stage, {})))
    return html.page(f"{len(runs)} runs compared", "\n".join(body))


def _stage(
    runs: Sequence[Run], stage: str, metrics: Mapping[str, Any], charts: Mapping[str, Any]
) -> str:
    title = f"<h3>{html.text(plain_words(stage))}</h3>"
    cells = [[_named(m), *_cells(m, values)] for m, values in metrics.items()]
    table = html.table(["", *(html.text(run.name) for run in runs)], cells)
    if all(map(_same, metrics.values())):
        alike = f"<details><summary>the same in all runs</summary><div>{table}</div></details>"
        return html.card(title, alike)
    figures = [_chart(*chart) for chart in charts.items()] if drawing.available() else []
    shown = f'<div class="charts">{"".join(figures)}</div>' if figures else ""
    return html.card(title, table, shown)


def _chart(metric: str, lines: Sequence[drawing.Series]) -> str:
    words, arrow = meaning(_own(metric)).words, html.better(_better(metric))
    return drawing.chart(_words_of(metric), lines, y=words, arrow=arrow)


def _named(metric: str) -> str:
    return html.text(_words_of(metric)) + html.better(_better(metric))


def _words_of(metric: str) -> str:
    """A metric of :func:`_points` in words."""
    own = _own(metric)
    return f"{meaning(own).words}, training" if own != metric else measured_on(metric)


def _own(metric: str) -> str:
    return metric.removeprefix("training ")


def _better(metric: str) -> str:
    return meaning(_own(metric)).better


def _cells(metric: str, values: Sequence[float | None]) -> list[str]:
    """Values as HTML, the best set apart."""
    best = _best(metric, values)
    return [f"<b>{_number(v)}</b>" if v == best is not None else _number(v) for v in values]


def _words(runs: Sequence[Run], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table of words, whose long paths may break at their dots."""
    head = ["", *(html.text(run.name) for run in runs)]
    cells = [[html.text(n).replace(".", ".<wbr>"), *map(html.text, own)] for n, own in rows]
    return html.card(html.table(head, cells, words=tuple(range(1, len(head)))))


def main(argv: list[str]) -> None:
    """The command line."""
    sys.exit(guarded(lambda: _compare(argv[1:])))


def _compare(workdirs: Sequence[str]) -> int:
    if len(workdirs) < 2:
        raise ValueError("which runs? jaxdistill compare <workdir> <workdir> ...")
    if len({Path(each).resolve() for each in workdirs}) < len(workdirs):
        raise ValueError("the same working directory is given twice")
    runs = [read(each, name) for each, name in zip(workdirs, names_of(workdirs), strict=True)]
    out = Path(OUT.value or "compare.html")
    html.write(out, page(runs))
    print(text(runs) + f"\n\n{out}")
    return 0
