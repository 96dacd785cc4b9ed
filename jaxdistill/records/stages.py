"""A stage that writes: requests of a training set, a teacher, steps, and what a student reads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdistill.data.records import Source
from jaxdistill.distiller import Reported, Work
from jaxdistill.records.answers import Answers, Teacher
from jaxdistill.records.conversations import conversations
from jaxdistill.records.nouns import Record
from jaxdistill.records.requests import Request
from jaxdistill.records.running import refuse_order
from jaxdistill.records.shards import Written
from jaxdistill.records.steps import Step
from jaxdistill.records.writing import write
from jaxdistill.settings import Count, Natural, Positive, Share

Measure = Callable[[Written, Mapping[str, Request]], Mapping[str, float]]
"""What is measured of a folder of records: ``(written, requests by id) -> {name: number}``."""
COUNTED = ("asked", "kept")


def written(
    sets: Mapping[str, Source],
    teachers: Callable[[Mapping[str, Any]], Sequence[Teacher]],
    before: Sequence[Step] = (),
    after: Sequence[Step] = (),
    measures: Sequence[Measure] = (),
    *,
    weights: Mapping[str, Positive] | None = None,
    failures: Share = 0.0,
    answers: str = "",
    pack: bool = False,
    batch_size: Count = 1024,
    seed: Natural = 0,
) -> Work:
    """Work that has teachers answer the requests of a training set.

    The records, those that were dropped, and the manifest lie in the folder of the stage. What a
    student reads of them are windows, see :func:`~jaxdistill.records.conversations`, with the chat
    and the length of the training set.

    Args:
        sets: of the stage; the training set is one of :func:`~jaxdistill.records.requested`.
        teachers: from the results of earlier stages to those who answer.
        before: steps that decide about requests.
        after: steps that decide about records.
        measures: what is measured of the folder, beside how many were ``asked`` and ``kept``.
        weights: of each teacher's records, 1 by default.
        failures: the share of questions that may remain without an answer.
        answers: a folder of answers that several runs share; by default one within the stage's.
        pack: whether windows hold several conversations.
        batch_size: windows that are read at once.
        seed: of the steps, beside that of the run.

    Raises:
        ValueError: for a training set that is none of requests, and an order of steps that cannot
            be.
    """
    train = sets.get("train")
    if train is None or "requests" not in train.info:
        name = "nothing" if train is None else repr(train.name)
        raise ValueError(f"'written' asks the requests of the data set 'requests', not {name}")
    for part in (before, after):
        refuse_order(part)
    requests: Mapping[str, Request] = train.info["requests"]

    def run(
        results: Mapping[str, Any],
        data: Mapping[str, Source],
        key: jax.Array,
        *,
        folder: Path | None = None,
    ) -> Reported:
        own_seed = seed + int(jax.random.bits(key, (), np.uint32))
        with tempfile.TemporaryDirectory() as spare:
            found = write(
                requests.values(),
                teachers(results),
                Path(spare, "records") if folder is None else folder,
                before=before,
                after=after,
                answers=Answers(answers) if answers else None,
                seed=own_seed,
                weights=weights,
                failures=failures,
            )
            windows = _windows(list(found.records()), train, pack, batch_size)
            numbers: dict[str, float] = {"asked": len(requests), "kept": len(found)}
            for measure in measures:
                numbers.update(measure(found, requests))
        return Reported(windows, numbers)

    named = [name for each in measures for name in getattr(each, "metrics", ())]
    return Work(run, "records", (*COUNTED, *named), keeps=True)


def _windows(
    records: Sequence[Record], train: Source, pack: bool, batch_size: int
) -> dict[str, np.ndarray]:
    """All windows as arrays by name."""
    if not records:
        raise ValueError("the steps left no record to learn from: dropped.jsonl says why")
    info = train.info
    source = conversations(
        records, info["chat"], info["length"], pack=pack, name="records", tasks=info["tasks"]
    )
    parts = [
        source.read(np.arange(start, min(start + batch_size, len(source))))
        for start in range(0, len(source), batch_size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
