"""Where a run is, and how that is kept.

A :class:`Run` is what stays the same, a :class:`Position` is where it is. The functions of the loop
take both and give the next position; a checkpoint is a position on disk.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from jaxdistill._files import Damaged
from jaxdistill.training import metrics as metric
from jaxdistill.training.checkpoint import Checkpoints
from jaxdistill.training.checks import not_finite
from jaxdistill.training.identity import machine, refuse_other, say_if_elsewhere
from jaxdistill.training.stage import Stage

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same while a stage runs.

    Attributes:
        stage: what is run.
        directory: where it is kept, or None.
        identity: what it is made from.
        mesh: where it runs.
        rules: how arrays lie on it.
        on_batch: how batches lie on it.
        frozen: the frozen variables, placed.
        writers: further places for the lines.
        begun: when this process began, by a clock that only goes up.
    """

    stage: Stage
    directory: Path | None
    identity: Mapping[str, Any]
    mesh: jax.sharding.Mesh
    rules: Sequence[tuple[str, Any]]
    on_batch: jax.sharding.NamedSharding
    frozen: Mapping[str, Any]
    writers: Sequence[metric.Writer]
    begun: float

    @property
    def checkpoints(self) -> Checkpoints | None:
        """Where positions are kept."""
        if self.directory is None:
            return None
        return Checkpoints(self.directory / "checkpoints", self.stage.keep)

    @property
    def lines(self) -> Path | None:
        """The file of the written lines."""
        return self.directory / "metrics.jsonl" if self.directory is not None else None


class Position(NamedTuple):
    """Where a run is: all that it needs to resume.

    Attributes:
        step: how many steps are done.
        state: the distiller's.
        plan: of the work between steps.
        best: ``step`` and ``value`` of the best evaluation so far, or None.
        values: the last value of every evaluated metric.
        totals: of the step's metrics since the last line.
        spans: the same over the whole run, under ``""``, and over its named parts.
        lines: what was written.
        seconds: how long the processes before this one took.
        pending: metrics of the last steps, still on the device.
        finite: the last step after which the state was seen to be finite.
        allowed: arrays of the state that were not finite when this process began.
        timed: step and time of the last line, for the rate.
        measured: the last step whose evaluations are done.
        saved: step and time of the last checkpoint.
        silent: metrics of which nothing counted, and which were warned about.
    """

    step: int
    state: Any
    plan: Any = None
    best: Mapping[str, Any] | None = None
    values: Mapping[str, float] = _NOTHING
    totals: metric.Totals = _NOTHING
    spans: Mapping[str, metric.Totals] = _NOTHING
    lines: tuple[Mapping[str, Any], ...] = ()
    seconds: float = 0.0
    pending: tuple[Any, ...] = ()
    finite: int = 0
    allowed: frozenset[str] = frozenset()
    timed: tuple[int, float] = (0, 0.0)
    measured: int = 0
    saved: tuple[int, float] = (-1, 0.0)
    silent: frozenset[str] = frozenset()


_KEPT = ("plan", "best", "values", "totals", "spans", "measured")


def seconds_of(run: Run, position: Position) -> float:
    """How long a run took so far, all its processes together."""
    return position.seconds + time.perf_counter() - run.begun


def save(run: Run, position: Position) -> Position:
    """Writes a checkpoint, once the state was seen to be finite; metrics that are still on the
    device must have been added up."""
    if run.checkpoints is None:
        return position
    assert not position.pending
    record = {
        "identity": run.identity,
        "machine": machine(run.mesh),
        **{name: getattr(position, name) for name in _KEPT},
        "seconds": seconds_of(run, position),
        "lines": metric.as_text(position.lines),
    }
    best = position.best["step"] if position.best else None
    run.checkpoints.save(position.step, position.state, record, protect=best)
    return position._replace(saved=(position.step, time.perf_counter()))


def newest(run: Run, state: Any) -> Position | None:
    """The position of the newest checkpoint that is whole, or None where there is none at all.

    Args:
        run: what is run.
        state: the shapes of its state, with shardings.

    Raises:
        Damaged: if there are checkpoints and none is whole.
        ValueError: if they are of another run.
    """
    damage = None
    for step in reversed(run.checkpoints.steps() if run.checkpoints else []):
        assert run.checkpoints is not None
        try:
            refuse_other(run.checkpoints.path(step), run.identity)
            arrays, record = run.checkpoints.load(step, state)
        except Damaged as fault:
            logging.warning("%s; going back to the checkpoint before it", fault)
            damage = damage or fault
            continue
        say_if_elsewhere(run.checkpoints.path(step), record, run.mesh)
        kept = {name: record[name] for name in (*_KEPT, "seconds")}
        return Position(step, arrays, **kept, lines=tuple(metric.from_text(record["lines"])))
    if damage is not None:
        raise damage
    return None


def refuse_state(run: Run, position: Position) -> Position:
    """Refuses a state that is not finite, naming the arrays; those that were not finite when the
    run began, such as a least value so far, may stay so.

    Raises:
        FloatingPointError: if it is not.
    """
    if position.finite == position.step:
        return position
    bad = not_finite(position.state, run.mesh)
    if bad := [name for name in bad if name not in position.allowed]:
        raise FloatingPointError(
            fault(
                run,
                f"at step {position.step}: {', '.join(bad)} of the state, finite at step "
                f"{position.finite}",
            )
        )
    return position._replace(finite=position.step)


def fault(run: Run, what: str) -> str:
    """What to say of something that is not finite."""
    kept = "there is no checkpoint"
    if run.checkpoints is not None and (steps := run.checkpoints.steps()):
        kept = f"the last good checkpoint is {run.checkpoints.path(steps[-1])}"
    return f"not finite {what}; {kept}"
