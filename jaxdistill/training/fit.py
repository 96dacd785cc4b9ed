"""Distillation without a config: one call on arrays, and the way back to its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdistill.distiller import Distiller
from jaxdistill.training.checkpoint import load_arrays
from jaxdistill.training.loop import Evaluation, Outcome, Stage, run_stage


def fit(
    distiller: Distiller,
    frozen: Mapping[str, Any],
    data: Any,
    steps: int,
    *,
    batch_size: int = 128,
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
        batch_size: how many records a batch holds, where ``data`` is no stream.
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
        quiet: no progress bar.

    Returns:
        An outcome: ``result``, ``metrics``, ``values``, ``seconds``.

    Raises:
        ValueError: before anything is compiled, when shapes do not fit, or when the working
            directory holds a run with another teacher, seed, length, batch size, other data, or a
            distiller that computes something else.
    """
    stage = Stage(
        name="fit",
        distiller=distiller,
        data=_as_stream(data, batch_size, seed),
        steps=steps,
        frozen=dict(frozen),
        initial=dict(initial or {}),
        seed=seed,
        evaluations=tuple(evaluations),
        between=between,
        spans=dict(spans or {}),
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        checkpoint_minutes=checkpoint_minutes,
        identity=None,
    )
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


def _as_stream(data: Any, batch_size: int, seed: int) -> Any:
    from jaxdistill.data.sources import Source, arrays
    from jaxdistill.data.stream import stream

    if isinstance(data, Mapping):
        data = arrays({name: np.asarray(value) for name, value in data.items()})
    if isinstance(data, Source):
        shard = (jax.process_index(), jax.process_count())
        return stream(data, min(batch_size, len(data)), seed=seed, shard=shard)
    return data
