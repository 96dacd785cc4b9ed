"""Work that trains nothing, run once and kept."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdistill.data.records import Source
from jaxdistill.distiller import Kind, Reported, Work
from jaxdistill.training.checkpoint import load_arrays, load_record, save_tree
from jaxdistill.training.checks import split_finite
from jaxdistill.training.identity import machine, refuse_other
from jaxdistill.training.lock import locked
from jaxdistill.training.processes import whole
from jaxdistill.training.sharding import make_mesh
from jaxdistill.training.signals import held, stoppable
from jaxdistill.training.stage import Evaluation, Outcome


def run_work(
    work: Work,
    results: Mapping[str, Any],
    data: Any,
    *,
    seed: int = 0,
    directory: Path | str | None = None,
    identity: Mapping[str, Any] | None = None,
    evaluations: Sequence[Evaluation] = (),
) -> Outcome:
    """Does a work, or returns what it left when it is done.

    Args:
        work: what to do.
        results: of earlier stages, by name.
        data: the sets that it reads, by name.
        seed: of its key.
        directory: holds ``result/``; without one nothing is kept.
        identity: JSON data that says what this work is; the result of any other is refused.
        evaluations: what is measured of the result; the numbers of a choice are reported besides,
            as ``choice/<name>``, and those that come beside another result as ``<kind>/<name>``.

    Raises:
        ValueError: when the directory holds the result of another work, or one that is damaged, and
            for a result that is not of the kind of the work.
        OSError: when another process is in the directory, or it cannot be written.
        FloatingPointError: when a value of it is not finite.
        Stopped: on SIGTERM and SIGINT; a work itself keeps what it needs to resume.

    Example:
        >>> work = Work(lambda results, data, key: {"best": 2.0}, "choice", ("best",))
        >>> run_work(work, {}, {}).values
        {'choice/best': 2.0}
    """
    own = {"work": dict(identity or {}), "seed": seed, "kind": work.kind, "data": _content(data)}
    path = Path(directory) / "result" if directory is not None else None
    if path is not None and path.is_dir():
        refuse_other(path, own)
        record = load_record(path)
        result = record["choice"] if work.kind == "choice" else work.made(**load_arrays(path))
        return Outcome(result, [], record["values"], record["seconds"])
    alone = locked(path.parent) if path is not None else contextlib.nullcontext()
    with stoppable(terminate=jax.process_count() == 1), alone:
        begin = time.perf_counter()
        kept = {"folder": path and path.parent / work.kind} if work.keeps else {}
        found = work.run(results, data, jax.random.key(seed), **kept)
        reported = found if isinstance(found, Reported) else Reported(found, {})
        result = reported.result
        refuse_other_kind(work.kind, result)
        values = _numbers(work, reported)
        for evaluation in evaluations:
            measured = evaluation.evaluator(result, dict(results), evaluation.data)
            values |= {f"{evaluation.set}/{name}": float(v) for name, v in measured.items()}
        if bad := split_finite(values)[1]:
            raise FloatingPointError(f"what a work left is not finite: {bad}")
        seconds = time.perf_counter() - begin
        if path is not None:
            record = {"identity": own, "values": values, "seconds": seconds}
            with held():
                _save(path, work, result, {**record, "machine": machine(make_mesh())})
    lines = [{"step": 0, "kind": "evaluation", **values}] if values else []
    return Outcome(result, lines, values, seconds)


def _save(path: Path, work: Work, result: Any, record: Mapping[str, Any]) -> None:
    if work.kind == "choice":
        save_tree(path, {"choice": np.zeros(())}, {**record, "choice": result})
    else:
        save_tree(path, jax.tree.map(whole, _by_name(result)), record)


def refuse_other_kind(kind: Kind, result: Any) -> None:
    """Holds a result against what its kind promises to those who read it.

    Raises:
        ValueError: for records that are not arrays of one length, by name, and images that are not
            rows ``[n, H, W, C]`` in [0, 1], by name.

    Example:
        >>> refuse_other_kind("records", {"tokens": np.zeros((3, 4)), "label": np.zeros(2)})
        Traceback (most recent call last):
        ValueError: records are arrays of one length by name, these have the shapes ...
    """
    if kind not in ("records", "images"):
        return
    if not isinstance(result, Mapping):
        raise ValueError(f"{kind} are arrays by name, not {type(result).__name__}")
    held = {name: np.asarray(value) for name, value in result.items()}
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in held.items()) or "nothing"
    if kind == "records":
        lengths = {array.shape[:1] for array in held.values()}
        if len(lengths) != 1 or lengths & {(), (0,)}:
            raise ValueError(
                f"records are arrays of one length by name, these have the shapes {shapes}"
            )
        if text := [name for name, array in held.items() if array.dtype.kind in "OSU"]:
            raise ValueError(f"records are numbers: {', '.join(text)} must be tokens or bytes")
    else:
        fine = (a.ndim == 4 and a.shape[-1] in (1, 3) for a in held.values())
        if not held or not all(fine):
            raise ValueError(f"images are rows [n, H, W, 1 or 3] by name, these are {shapes}")
        if not all(((array >= 0) & (array <= 1)).all() for array in held.values()):
            raise ValueError("images lie in [0, 1], and these do not")


def _content(data: Any) -> dict[str, str]:
    """Fingerprints of the sets that a work reads."""
    sets = data.items() if isinstance(data, Mapping) else ()
    return {name: source.fingerprint() for name, source in sets if isinstance(source, Source)}


def _numbers(work: Work, reported: Reported) -> dict[str, float]:
    """What a choice holds, or what is reported of another result."""
    choice = work.kind == "choice"
    held = reported.result if choice else reported.numbers
    missing = [name for name in work.metrics if name not in held]
    if missing:
        what = "choice" if choice else "report"
        raise ValueError(f"the {what} lacks the numbers {missing} that its work says it holds")
    names = work.metrics if choice else held
    return {f"{work.kind}/{name}": float(held[name]) for name in names}


def _by_name(result: Any) -> dict[str, Any]:
    fields = getattr(result, "_asdict", None)
    return dict(fields() if fields is not None else result)
