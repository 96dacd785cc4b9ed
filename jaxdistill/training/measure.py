"""What a run measures: the metrics of its steps, and its evaluations."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

import jax

from jaxdistill._errors import unknown
from jaxdistill.training import metrics as metric
from jaxdistill.training.checks import split_finite
from jaxdistill.training.position import Position, Run, fault, refuse_state
from jaxdistill.training.processes import is_first
from jaxdistill.training.stage import Stage

_WHOLE = ""  # the span that is all of a run


def write(run: Run, position: Position, kind: str, numbers: Mapping[str, float]) -> Position:
    """The position with a line more, which all writers are given."""
    own = [metric.json_lines(run.lines)] if run.lines is not None and is_first() else []
    for sink in (*run.writers, *own):
        sink(position.step, numbers, kind)
    line = {"step": position.step, "kind": kind, **numbers}
    return position._replace(lines=(*position.lines, line))


def drain(run: Run, position: Position) -> Position:
    """Adds up the metrics that are still on the device.

    Raises:
        FloatingPointError: if one is not finite, naming the first step and the metric.
    """
    totals, spans = position.totals, dict(position.spans)
    begun = position.step - len(position.pending)
    for step, found in enumerate(jax.device_get(position.pending), begun):
        own = {name: (float(total), float(count)) for name, (total, count) in found.items()}
        if not all(math.isfinite(x) for pair in own.values() for x in pair):
            refuse_values(run, step + 1, {name: _shown(*pair) for name, pair in own.items()})
        totals = metric.added(totals, own)
        for name in spans_at(run.stage, step):
            spans[name] = metric.added(spans.get(name, {}), own)
    return position._replace(totals=totals, spans=spans, pending=())


def _shown(total: float, count: float) -> float:
    """A mean to show, not finite if one of the two is not."""
    return total / count if count and math.isfinite(count) else total + count


def spans_at(stage: Stage, step: int) -> list[str]:
    """The spans that a step, counted from 0, belongs to."""
    parts = [name for name, (first, last) in stage.spans.items() if first <= step < last]
    return [_WHOLE, *parts]


def span_values(position: Position) -> dict[str, float]:
    """The means over the whole run and its parts, as ``train/<name>``, ``train/<span>/<name>``."""
    return {
        f"train/{span}/{name}" if span else f"train/{name}": value
        for span, totals in position.spans.items()
        for name, value in metric.means(totals).items()
    }


def log(run: Run, position: Position) -> Position:
    """Writes the mean metrics since the last line.

    Raises:
        FloatingPointError: if a metric or the state is not finite.
    """
    position = refuse_state(run, drain(run, position))
    if not position.totals:
        return position
    now = time.perf_counter()
    rate = (position.step - position.timed[0]) / max(now - position.timed[1], 1e-9)
    told = position.plan.get("metrics", {}) if isinstance(position.plan, Mapping) else {}
    numbers = {**metric.means(position.totals), **told, "steps_per_second": rate}
    position = write(run, _warned(position), "train", numbers)
    return position._replace(totals={}, timed=(position.step, now))


def evaluate(run: Run, position: Position) -> Position:
    """Runs the evaluations that are due, and knows whether this step is the best so far.

    Raises:
        FloatingPointError: if a value is not finite. One to select by may be so before the end; its
            step is then passed over, with a warning.
    """
    stage = run.stage
    last = position.step == stage.steps
    due = [e for e in stage.evaluations if last or (e.every and position.step % e.every == 0)]
    if not due:
        return position
    position = refuse_state(run, position)
    found: dict[str, float] = {}
    for evaluation in due:
        numbers = evaluation.evaluator(
            stage.distiller.result(position.state), run.frozen, evaluation.data
        )
        found |= {f"{evaluation.set}/{name}": float(v) for name, v in numbers.items()}
        if evaluation.mean:
            found |= _means(position, evaluation.set, numbers)
    if not found:
        return position
    selected = stage.best[0] if stage.best and not last else None
    refuse_values(run, position.step, {k: v for k, v in found.items() if k != selected})
    position = write(run, position, "evaluation", found)
    position = position._replace(values={**position.values, **found})
    if stage.best is None:
        return position
    if stage.best[0] not in found:
        of_set = [e for e in stage.evaluations if e.set == stage.best[0].split("/")[0]]
        if all(e in due for e in of_set):
            raise ValueError(unknown("metric to select by", stage.best[0], found))
        return position
    return _selected(position, *stage.best, found[stage.best[0]])


def _means(position: Position, part: str, numbers: Mapping[str, float]) -> dict[str, float]:
    """The means over all evaluations so far, these among them."""
    written = [line for line in position.lines if line["kind"] == "evaluation"]
    found = {}
    for name, value in numbers.items():
        own = [line[f"{part}/{name}"] for line in written if f"{part}/{name}" in line]
        found[f"{part}/mean/{name}"] = (sum(own) + float(value)) / (len(own) + 1)
    return found


def _selected(position: Position, name: str, direction: str, value: float) -> Position:
    if not math.isfinite(value):
        logging.warning(
            "%s is %s at step %d: this step is not selected by it", name, value, position.step
        )
        return position
    sign = 1 if direction == "max" else -1
    if position.best is not None and sign * value <= sign * position.best["value"]:
        return position
    return position._replace(best={"step": position.step, "value": value})


def refuse_values(run: Run, step: int, values: Mapping[str, float]) -> None:
    """Refuses values that are not finite.

    Raises:
        FloatingPointError: naming them, the step, and the last good checkpoint.
    """
    good, bad = split_finite(values)
    if bad:
        beside = f", beside {good}" if good else ""
        raise FloatingPointError(fault(run, f"at step {step}: {bad}{beside}"))


def _warned(position: Position) -> Position:
    """Warns once of every metric of which nothing counted since the last line."""
    silent = {name for name, (_, count) in position.totals.items() if not count}
    for name in sorted(silent - position.silent):
        logging.warning(
            "nothing counted for %r up to step %d: is all of it masked, or are labels no classes?",
            name, position.step,
        )  # fmt: skip
    return position._replace(silent=position.silent | silent)
