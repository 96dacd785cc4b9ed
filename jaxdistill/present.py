"""What a finished recipe shows: the report with its pictures, and the student for use elsewhere."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdistill import condense, headline
from jaxdistill._errors import unknown
from jaxdistill.pictures import PICTURES
from jaxdistill.recipe import Plan, Planned
from jaxdistill.recipe.student import CostsOf
from jaxdistill.registry.entries import scheduled
from jaxdistill.training.loop import Outcome
from jaxdistill.training.report import Picture, environment, write_report
from jaxdistill.training.tracking import Tracker, sheet

# At so many steps the learning rate is drawn.
RATES = 60


def report(
    root: Path | str,
    plan: Plan,
    outcomes: Mapping[str, Outcome],
    measured: CostsOf,
    *,
    command: str = "",
    changes: Sequence[str] = (),
    trackers: Sequence[Tracker] = (),
) -> Path:
    """Writes ``report.json`` and ``report.html`` into a working directory.

    Args:
        root: the working directory.
        plan: the recipe.
        outcomes: what its stages left.
        measured: what the net of a stage costs, see :func:`jaxdistill.recipe.costs_of`.
        command: what made it.
        changes: what was changed in the config, ``path=value`` each.
        trackers: which are shown the last values and the images too.

    Returns:
        The path of the page.
    """
    pictures = [
        PICTURES[kind].draw(plan, planned, outcomes)
        for planned in plan.stages
        for kind in _pictures(planned)
    ]
    _tell(trackers, outcomes, pictures)
    return write_report(
        root,
        {
            "title": plan.config.get("title", ""),
            "sentence": _sentence(plan, changes),
            "command": command,
            "created": time.strftime("%Y-%m-%d %H:%M"),
            "answer": headline.answer(plan, outcomes, measured),
            "config": plan.config,
            "environment": environment(),
            "stages": [_stage(plan, planned, outcomes[planned.name]) for planned in plan.stages],
            "summary": [{"model": name, **outcome.values} for name, outcome in outcomes.items()],
        },
        pictures,
    )


def _tell(
    trackers: Sequence[Tracker], outcomes: Mapping[str, Outcome], pictures: Sequence[Picture]
) -> None:
    """Shows trackers what came out."""
    values = {f"{n}/{m}": v for n, outcome in outcomes.items() for m, v in outcome.values.items()}
    for tracker in trackers:
        sheets = {p.title: sheet(p.data.values()) for p in pictures if p.kind == "images"}
        tracker.summary(values, sheets)


def _pictures(planned: Planned) -> Sequence[str]:
    """What is shown of a stage: what its config asks for, and what it leaves if that is images."""
    asked = planned.settings["pictures"]
    return (*asked, "images") if planned.kind == "images" and "images" not in asked else asked


def _sentence(plan: Plan, changes: Sequence[str]) -> str:
    """What the config says of itself, and what really ran."""
    said = [plan.config.get("sentence", "")]
    if plan.config.get("data"):
        said.append(f"Data: {plan.config['data']['name']}.")
    if changes:
        said.append(f"Changed: {', '.join(changes)}.")
    return " ".join(part for part in said if part)


def history(
    outcomes: Mapping[str, Outcome], metric: str
) -> dict[str, tuple[list[int], list[float]]]:
    """For every stage that measured a metric, at which steps it was evaluated and what it was."""
    found = {
        name: [(line["step"], line[metric]) for line in outcome.metrics if metric in line]
        for name, outcome in outcomes.items()
    }
    return {
        name: ([step for step, _ in pairs], [value for _, value in pairs])
        for name, pairs in found.items()
        if pairs
    }


def table(outcomes: Mapping[str, Outcome], metric: str) -> str:
    """The history of a metric as text: a row for every step, a column for every stage."""
    lines = {
        name: dict(zip(*pairs, strict=True)) for name, pairs in history(outcomes, metric).items()
    }
    rows = [metric, f"{'step':>6} " + " ".join(f"{name:>14}" for name in lines)]
    for step in sorted({step for line in lines.values() for step in line}):
        cells = (f"{line[step]:14.5f}" if step in line else " " * 14 for line in lines.values())
        rows.append(f"{step:6} " + " ".join(cells))
    return "\n".join(rows)


def synthetic(root: Path | str, plan: Plan, outcomes: Mapping[str, Outcome]) -> list[Path]:
    """Writes the last stage's synthetic set into ``root/synthetic``: ``set.npz`` with all of it,
    and, where Pillow is installed, ``images/<class>/<number>.png``. Nothing for other results."""
    last = plan.stages[-1]
    result = outcomes[last.name].result
    if last.kind != "data_set":
        return []
    info = last.info
    folder = Path(root) / "synthetic"
    folder.mkdir(exist_ok=True)
    files = [condense.save_npz(folder / "set.npz", result, info.get("whitening"))]
    if importlib.util.find_spec("PIL"):
        names = [str(name) for name in info.get("class_names") or range(info["classes"])]
        files.append(condense.save_folder(folder / "images", result, info.get("whitening"), names))
    return files


def _stage(plan: Plan, planned: Planned, outcome: Outcome) -> dict[str, Any]:
    """A stage as a report wants it: training and evaluation apart, a line for every set."""
    evaluations = []
    for line in outcome.metrics:
        sets: dict[str, dict[str, float]] = {}
        for key, value in line.items():
            part, slash, metric = key.partition("/")
            if line["kind"] != "train" and slash:
                sets.setdefault(part, {})[metric] = value
        evaluations += [
            {"step": line["step"], "set": part, **values} for part, values in sets.items()
        ]
    return {
        "name": planned.name,
        "what": headline.described(planned, outcome.result),
        "learns_from": headline.learns_from(plan, planned),
        "steps": planned.settings["steps"],
        "seconds": outcome.seconds,
        **_size(planned, outcome.result),
        "kind": planned.kind,
        "metrics": [line for line in outcome.metrics if line["kind"] == "train"],
        "evaluations": evaluations,
        **_learning_rate(planned.settings),
    }


def _learning_rate(settings: Mapping[str, Any]) -> dict[str, tuple[list[int], list[float]]]:
    """The rate of a stage's optimizer at some steps; nothing where it has none, or one a part."""
    rate, steps = (settings["optimizer"] or {}).get("learning_rate"), settings["steps"]
    if rate is None or steps < 2:
        return {}
    places = set(np.linspace(0, steps - 1, RATES).round().astype(int).tolist())
    if isinstance(rate, Mapping):
        # Its corners too: without them its peak would be drawn a little too low.
        corners = [rate.get("warmup") or 0, *(rate.get("milestones") or ())]
        places |= {int(step) for step in corners if step < steps}
        schedule = scheduled("'learning_rate'", steps, rate)
        values = [float(schedule(step)) for step in sorted(places)]
    else:
        values = [float(rate)] * len(places)
    return {"learning_rate": (sorted(places), values)}


def _size(planned: Planned, result: Any) -> dict[str, int]:
    """How much a stage has left, in what its result is counted in."""
    if planned.kind == "records":
        return {"records": len(next(iter(result.values())))}
    if planned.kind == "data_set":
        return {"records": len(result.images)}
    if planned.kind in ("choice", "images"):
        return {}
    params = result[0] if planned.kind == "net" else result
    return {"parameters": sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))}


def check(plan: Plan) -> None:
    """Refuses unknown pictures and tables, before anything is computed."""
    parts = {part for planned in plan.stages for part in _measured(planned)}
    for metric in plan.config.get("table") or ():
        if metric.split("/")[0] not in parts:
            raise ValueError(unknown("set of a metric in 'table'", metric.split("/")[0], parts))
        names = [name for planned in plan.stages for name in planned.metrics or (metric,)]
        if metric not in names:
            raise ValueError(unknown("metric in 'table'", metric, names))
    for planned in plan.stages:
        for kind in planned.settings["pictures"]:
            if kind not in PICTURES:
                raise ValueError(unknown(f"picture of stage {planned.name!r}", kind, PICTURES))
            if not PICTURES[kind].fits(planned):
                raise ValueError(
                    f"stage {planned.name!r} {PICTURES[kind].lacks}: it has no {kind!r} to show"
                )


def _measured(planned: Planned) -> Sequence[str]:
    specs = planned.settings["evaluate"].values()
    return [part for spec in specs for part in spec.get("sets", ("validation",))]
