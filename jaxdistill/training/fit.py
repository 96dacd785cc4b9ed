"""Distillation without a config: one call on arrays, and the way back to its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdistill.data.checks import check_sets
from jaxdistill.data.records import Source
from jaxdistill.distiller import Distiller
from jaxdistill.net import described
from jaxdistill.training.arguments import (
    as_data,
    as_stream,
    check_distiller,
    check_host_work,
    check_numbers,
    explained,
    told_apart,
    variables,
)
from jaxdistill.training.checkpoint import load_arrays
from jaxdistill.training.loop import Evaluation, Outcome, Stage, run_stage


def fit(
    distiller: Distiller,
    frozen: Mapping[str, Any],
    data: Any,
    steps: int,
    *,
    batch_size: int | None = None,
    classes: int | None = None,
    seed: int = 0,
    initial: Mapping[str, Any] | None = None,
    evaluations: Sequence[Evaluation] = (),
    between: tuple[int, Callable[..., Any]] | None = None,
    workdir: Path | str | None = None,
    spans: Mapping[str, tuple[int, int]] | None = None,
    log_every: int = 50,
    checkpoint_every: int = 0,
    checkpoint_minutes: float = 5.0,
    mesh: jax.sharding.Mesh | None = None,
    rules: Sequence[tuple[str, Any]] = (),
    quiet: bool = False,
) -> Outcome:
    """Runs a distiller.

    Args:
        distiller: see :class:`~jaxdistill.distiller.Distiller`;
            :func:`~jaxdistill.distiller.model_to_model` makes the usual one.
        frozen: the variables that the step reads and never changes: ``{"teacher": (params,
            state)}``.
        data: a dict of arrays with records on the first axis, a source, a stream, or a function
            from the plan to a stream; None for a distiller that takes no batches.
        steps: how many steps to do.
        batch_size: how many records a batch holds, where ``data`` is no stream: 128, or all where
            there are fewer, if not given.
        classes: how many classes the student tells apart, where ``data`` holds records with a
            ``label``: one that is no class of these is refused, in the data and in what is
            evaluated on (losses give 0 for it, so that it would be learnt from in silence). If not
            given, as many as the losses of the step that take ``batch["label"]`` as it is. A label
            of -1 is hidden where ``has_label`` of the record is 0.
        seed: of the run's key and of the order of the records.
        initial: variables that only ``distiller.init`` reads, by name.
        evaluations: what is measured on the way and at the end.
        between: ``(every, fn)``, host work between steps, see
            :class:`~jaxdistill.training.loop.Stage`.
        workdir: where metrics, checkpoints and the result are kept; the same call resumes what is
            there.
        spans: parts of the run whose mean metrics are wanted, by name: ``(first step, step behind
            the last)``.
        log_every: after how many steps mean metrics are written.
        checkpoint_every: after how many steps a checkpoint is written.
        checkpoint_minutes: after how many minutes one is written besides; 0 for none.
        mesh: the devices to use, all by default.
        rules: partition rules, see :mod:`jaxdistill.training.sharding`.
        quiet: no progress.

    Returns:
        An outcome: ``result``, ``metrics``, ``values``, ``seconds``.

    Raises:
        ValueError: before anything is compiled, when shapes do not fit, or when the working
            directory holds a run with another teacher, seed, length, batch size, other data, or a
            distiller that computes something else; and for numbers that cannot be, arrays that
            are no records, labels that are no classes, and an entry of ``frozen`` or a batch that
            is asked for and not there.
        TypeError: for what is of another kind, saying what was given and what is wanted.
    """
    check_distiller(distiller)
    check_numbers(steps=steps, seed=seed, log_every=log_every)
    given = {"batch_size": batch_size, "classes": classes}
    check_numbers(**{name: number for name, number in given.items() if number is not None})
    check_host_work(evaluations, between)
    if mesh is not None and not isinstance(mesh, jax.sharding.Mesh):
        raise TypeError(f"mesh must be a Mesh, which make_mesh gives, not {described(mesh)}")
    frozen, initial = variables("frozen", frozen), variables("initial", initial or {})
    held = as_data(data)
    if isinstance(held, Source):
        source, held = held, as_stream(held, batch_size, seed)
        if classes is None and "label" in source.read(np.zeros(1, np.int64)):
            classes = told_apart(distiller, frozen, initial, held.at(0, distiller.takes))
        others = {e.set: e.data for e in evaluations if isinstance(e.data, Source)}
        check_sets({"train": source, **others}, classes=classes)
    if held is None and distiller.takes:
        raise TypeError("data is None, and this distiller takes batches")
    stage = Stage(
        name="fit",
        distiller=distiller,
        data=held,
        steps=steps,
        frozen=frozen,
        initial=initial,
        seed=seed,
        evaluations=tuple(evaluations),
        between=between,
        spans=dict(spans or {}),
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        checkpoint_minutes=checkpoint_minutes,
        identity=None,
    )
    with explained(held, frozen):
        return run_stage(stage, workdir, mesh=mesh, rules=rules, quiet=quiet)


def load_result(directory: Path | str) -> Any:
    """The result that a stage left in its directory, as nested dicts and lists of arrays.

    Raises:
        ValueError: if the stage is not done.
    """
    path = Path(directory) / "result"
    try:
        return load_arrays(path)
    except ValueError as fault:
        raise ValueError(f"{directory} holds no result: the stage is not done ({fault})") from fault
