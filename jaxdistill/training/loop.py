"""The one loop: any distiller over any stream; a stopped run resumes as if it never had been.

Every function here takes a :class:`~jaxdistill.training.position.Run`, which stays the same, and a
:class:`~jaxdistill.training.position.Position`, and gives the next position.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxdistill.distiller import Distiller
from jaxdistill.progress import Progress, silence
from jaxdistill.training import metrics as metric
from jaxdistill.training.checkpoint import load_tree, remove_unfinished, save_tree
from jaxdistill.training.checks import (
    abstract,
    check,
    check_divisible,
    first_batch,
    not_finite,
    of_all_processes,
    stream_of,
)
from jaxdistill.training.identity import identity_of, machine, refuse_other
from jaxdistill.training.lock import locked
from jaxdistill.training.measure import (
    drain,
    evaluate,
    log,
    refuse_values,
    span_values,
    write,
)
from jaxdistill.training.position import (
    Position,
    Run,
    newest,
    refuse_state,
    save,
    seconds_of,
)
from jaxdistill.training.processes import barrier, is_first, told_to_stop
from jaxdistill.training.sharding import (
    batch_sharding,
    global_batch,
    make_mesh,
    on_mesh,
    place,
    replicated,
    shapes_on,
    shardings,
)
from jaxdistill.training.signals import Stopped, held, received, stoppable
from jaxdistill.training.stage import Evaluation, Evaluator, Outcome, Stage

__all__ = [
    "Evaluation",
    "Evaluator",
    "Outcome",
    "Stage",
    "abstract",
    "check",
    "first_batch",
    "over_seeds",
    "run_stage",
    "stream_of",
]

# Metrics of so many steps stay on the device before they are added up, when no line is due.
_PENDING = 256


def run_stage(
    stage: Stage,
    directory: Path | str | None = None,
    *,
    mesh: jax.sharding.Mesh | None = None,
    rules: Sequence[tuple[str, Any]] = (),
    writers: Sequence[metric.Writer] = (),
    quiet: bool = False,
) -> Outcome:
    """Runs a stage, resumes it from its last checkpoint, or returns its result if it is done.

    Args:
        stage: what to run.
        directory: holds ``metrics.jsonl``, ``checkpoints/`` and ``result/``; without one nothing is
            kept.
        mesh: where to run, all devices by default.
        rules: partition rules for frozen variables and state, see
            :mod:`jaxdistill.training.sharding`.
        writers: further places for the metrics.
        quiet: no progress.

    Raises:
        ValueError: before anything is compiled, when shapes do not fit, or the directory holds
            another run.
        OSError: when another process is in the directory, or it cannot be written.
        Stopped: on SIGTERM and SIGINT, once the position is kept.
        FloatingPointError: when a metric, an evaluation or an array of the state is not finite; it
            names the last good checkpoint.
    """
    if stage.returns == "best" and directory is None:
        raise ValueError("returns='best' needs a directory, where the best checkpoint is kept")
    mesh = mesh if mesh is not None else make_mesh()
    stream = stream_of(stage.data, None) if stage.distiller.takes else None
    batch = stream.at(0, stage.distiller.takes) if stream is not None else {}
    run = Run(
        stage=stage,
        directory=Path(directory) if directory is not None else None,
        identity=identity_of(stage, stream, batch) if directory is not None else {},
        mesh=mesh,
        rules=tuple(rules),
        on_batch=batch_sharding(mesh, stage.distiller.takes),
        frozen=place(mesh, dict(stage.frozen), rules),
        writers=tuple(writers) if is_first() else (),
        begun=time.perf_counter(),
    )
    if run.directory is not None and (run.directory / "result").is_dir():
        return _reopened(run, batch)
    several = jax.process_count() > 1
    kept = locked(run.directory) if run.directory is not None else contextlib.nullcontext()
    with stoppable(terminate=not several), kept, silence(quiet):
        position, step = _begin(run, batch)
        position = _train(run, position, step)
        with held():
            return _finish(run, position)


def over_seeds(distiller: Distiller, seeds: int) -> Distiller:
    """Several runs of a distiller as one, vmapped: same data, different keys.

    Worth it where it measures faster than runs one after another (MLPs, small transformers). The
    state, and with it the result, has a leading axis of seeds; metrics are summed over it.
    """

    def init(key, frozen, batch):
        keys = jax.random.split(key, seeds)
        return jax.vmap(distiller.init, in_axes=(0, None, None))(keys, frozen, batch)

    def step(state, frozen, batch):
        state, metrics = jax.vmap(distiller.step, in_axes=(0, None, None))(state, frozen, batch)
        return state, jax.tree.map(lambda x: x.sum(0), metrics)

    return distiller._replace(init=init, step=step, result=jax.vmap(distiller.result))


# --- the beginning ----------------------------------------------------------------------------


def _begin(run: Run, batch: Any) -> tuple[Position, Callable[..., Any]]:
    """The position to go on from, and the compiled step."""
    stage, distiller = run.stage, run.stage.distiller
    started = {**run.frozen, **place(run.mesh, dict(stage.initial), run.rules)}
    key = jax.random.key(stage.seed)
    shapes = of_all_processes(abstract(batch), run.on_batch)
    check_divisible(shapes, run.on_batch)
    state = check(distiller, key, started, run.frozen, shapes, run.mesh, run.rules)
    placed = shardings(run.mesh, state, run.rules)
    # The inner jit is the one that has been traced already.
    step = jax.jit(
        on_mesh(jax.jit(distiller.step), run.mesh),
        donate_argnums=0,
        out_shardings=(placed, replicated(run.mesh)),
    )
    position = newest(run, shapes_on(run.mesh, state, run.rules))
    _clear(run, position)
    resumed = position is not None
    if position is None:
        init = jax.jit(on_mesh(jax.jit(distiller.init), run.mesh), out_shardings=placed)
        position = Position(0, init(key, started, _placed(run, batch)))
        position = _measure_teachers(run, position)
    now = time.perf_counter()
    position = position._replace(
        finite=position.step,
        allowed=frozenset(not_finite(position.state, run.mesh)),
        timed=(position.step, now),
        saved=(position.step if resumed else -1, now),
    )
    return position, step


def _clear(run: Run, position: Position | None) -> None:
    """Removes what a process that died left behind its last checkpoint."""
    if run.directory is None:
        return
    if is_first():
        remove_unfinished(run.directory)
        remove_unfinished(run.directory / "checkpoints")
        text = metric.as_text(position.lines) if position is not None else ""
        metric.bring_back(run.directory / "metrics.jsonl", text)
    barrier(f"begin {run.directory}")


def _measure_teachers(run: Run, position: Position) -> Position:
    found: dict[str, float] = {}
    for name, evaluation in run.stage.before:
        numbers = evaluation.evaluator(run.frozen[name], run.frozen, evaluation.data)
        found |= {f"{name}:{evaluation.set}/{key}": float(v) for key, v in numbers.items()}
    if found:
        refuse_values(run, 0, found)
        position = write(run, position, "teacher", found)._replace(values=found)
    return position


# --- the steps --------------------------------------------------------------------------------

# So many steps may be on their way at once. Of more than 32, devices of one processor can wait for
# each other for good.
_IN_FLIGHT = 16


def _train(run: Run, position: Position, step: Callable[..., Any]) -> Position:
    """All steps that are left, and what is due after each. A signal waits while the position moves;
    at any other time it may come."""
    stage, batches, together = run.stage, None, jax.process_count() == 1
    if stage.steps == 0:
        return evaluate(run, position)
    progress = Progress(stage.steps, label=stage.name, start=position.step)
    try:
        with progress:
            while (position := _measured(run, position)).step < stage.steps:
                if told_to_stop():
                    together = True
                    raise Stopped(received(signal.SIGTERM))
                # The plan becomes the position's with the step that follows it: not before.
                planned = position
                if stage.between and position.step % stage.between[0] == 0:
                    planned, batches = _planned(run, position), None
                if batches is None:
                    batches = _batches(stage, planned)
                batch = next(batches)
                with held():
                    position = _logged(run, _stepped(run, planned, step, batch))
                progress.update(position.step, _shown(position))
    except Stopped as stop:
        raise _kept(run, position, stop, together) from None
    return position


def _kept(run: Run, position: Position, stop: Stopped, together: bool) -> Stopped:
    """Keeps the position of a run that must stop, and says how to resume it. Only a checkpoint that
    all processes write at the same step is one."""
    where = f"after step {position.step} of {run.stage.steps} of stage {run.stage.name!r}"
    if run.checkpoints is None:
        return Stopped(stop.number, f"{where}; without a working directory nothing is kept")
    if not together:
        return Stopped(stop.number, f"{where}; the same command goes on from the last checkpoint")
    with held(stop=False):
        if position.saved[0] != position.step:
            save(run, refuse_state(run, drain(run, position)))
    path = run.checkpoints.path(position.step)
    return Stopped(stop.number, f"{where}, kept in {path}; the same command goes on from there")


def _planned(run: Run, position: Position) -> Position:
    assert run.stage.between is not None
    result = run.stage.distiller.result(position.state)
    return position._replace(plan=run.stage.between[1](result, run.frozen, position.plan))


def _batches(stage: Stage, position: Position) -> Iterator[Any]:
    if not stage.distiller.takes:
        return itertools.repeat({})
    stream = stream_of(stage.data, position.plan)
    return stream.iterate(position.step, stage.distiller.takes)


def _placed(run: Run, batch: Any) -> Any:
    return jax.tree.map(lambda x: global_batch(x, run.on_batch), batch)


def _stepped(run: Run, position: Position, step: Callable[..., Any], batch: Any) -> Position:
    state, measured = step(position.state, run.frozen, _placed(run, batch))
    pending = (*position.pending, measured)
    if len(pending) > _IN_FLIGHT:
        jax.block_until_ready(pending[-_IN_FLIGHT])
    return position._replace(step=position.step + 1, state=state, pending=pending)


def _logged(run: Run, position: Position) -> Position:
    """Writes the metrics that are due after a step."""
    if position.step == run.stage.steps or _due(position.step, run.stage.log_every):
        return log(run, position)
    return drain(run, position) if len(position.pending) >= _PENDING else position


def _measured(run: Run, position: Position) -> Position:
    """Evaluates and saves what is due after a step."""
    stage, last = run.stage, position.step == run.stage.steps
    if position.measured == position.step:
        return position
    position = evaluate(run, position)._replace(measured=position.step)
    improved = position.best is not None and position.best["step"] == position.step
    regular = _due(position.step, stage.checkpoint_every) or (last and stage.checkpoint_every)
    if improved or regular or (_is_late(run, position) and not last):
        with held():
            position = save(run, refuse_state(run, drain(run, position)))
    return position


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def _is_late(run: Run, position: Position) -> bool:
    """Whether the last checkpoint was written too long ago."""
    minutes = run.stage.checkpoint_minutes
    if run.directory is None or not minutes:
        return False
    return time.perf_counter() - position.saved[1] > 60 * minutes


# --- the end ----------------------------------------------------------------------------------


def _finish(run: Run, position: Position) -> Outcome:
    """What the stage leaves behind, in memory and on disk."""
    stage, best = run.stage, position.best
    if stage.returns == "best" and best is not None and best["step"] != stage.steps:
        assert run.checkpoints is not None
        shapes = jax.tree.map(_shape, position.state)
        position = position._replace(state=run.checkpoints.load(best["step"], shapes)[0])
    result = stage.distiller.result(position.state)
    values = {**span_values(position), **position.values}
    seconds = seconds_of(run, position)
    if run.directory is not None:
        record = {
            "identity": run.identity,
            "machine": machine(run.mesh),
            "values": values,
            "seconds": seconds,
            "steps": stage.steps,
            "lines": metric.as_text(position.lines),
        }
        save_tree(run.directory / "result", result, record)
    return Outcome(result, [dict(line) for line in position.lines], values, seconds)


def _reopened(run: Run, batch: Any) -> Outcome:
    """What a stage that is done has left on disk."""
    assert run.directory is not None
    stage, path = run.stage, run.directory / "result"
    refuse_other(path, run.identity)
    started = {**stage.frozen, **stage.initial}
    batch = of_all_processes(abstract(batch), run.on_batch)

    def result(*given):
        return stage.distiller.result(stage.distiller.init(*given))

    expected = jax.eval_shape(result, jax.random.key(stage.seed), started, batch)
    found, record = load_tree(path, shapes_on(run.mesh, expected, run.rules))
    if is_first():
        metric.bring_back(run.directory / "metrics.jsonl", record["lines"])
    return Outcome(found, metric.from_text(record["lines"]), record["values"], record["seconds"])


def _shape(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _shown(position: Position) -> Mapping[str, float]:
    """The metrics of the last line of this step, for the progress bar."""
    if position.timed[0] != position.step:
        return {}
    lines = (line for line in reversed(position.lines) if line["kind"] == "train")
    line = next(lines, {})
    return {k: v for k, v in line.items() if k not in ("step", "kind", "steps_per_second")}
