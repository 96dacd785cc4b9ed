"""Answers of mathematics held against their references by math-verify, in other processes."""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Sequence
from typing import Any

from jaxdistill.progress import Progress
from jaxdistill.records.nouns import Record
from jaxdistill.records.steps import Decision, deciding, needs_package
from jaxdistill.records.workers import Worker, in_threads
from jaxdistill.settings import Count, Positive

# A worker counts seconds of the processor; it is ended after so many times as many of the clock.
_PATIENCE = 20.0


@deciding(
    gives=("score {name}",),
    check=lambda said: needs_package("math_verify", "verified_mathematics"),
)
def verified_mathematics(
    items: Sequence[Record],
    seed: int,
    *,
    name: str = "right",
    keep_wrong: bool = False,
    seconds: Positive = 5.0,
    memory: Count = 4096,
    workers: Count = 2,
) -> list[Decision]:
    """Keeps answers that are equal to their reference, as math-verify sees it.

    The reference is the first argument of ``verify``, which is not symmetric. Formulas need their
    ``$``: math-verify misreads many without.

    Args:
        items: records with a reference; their ``answer`` is read.
        seed: not used.
        name: of the score, 1 for right, 0 for all else.
        keep_wrong: keeps all that have a reference, with their score.
        seconds: of the processor for a comparison.
        memory: MiB of a worker.
        workers: processes.

    Raises:
        ImportError: without the extra ``records``.
    """
    pairs = sorted({(each.reference, each.answer) for each in items if each.reference})
    verdicts = dict(zip(pairs, compared(pairs, seconds, memory, workers), strict=True))
    found = []
    for each in items:
        if not each.reference:
            found.append(Decision(each, False, reason="no reference"))
            continue
        verdict = verdicts[each.reference, each.answer]
        right = verdict == "right"
        scored = dataclasses.replace(each, scores={**each.scores, name: float(right)})
        reason = "" if right else verdict
        found.append(Decision(scored, right or keep_wrong, float(right), reason))
    return found


def compared(
    pairs: Sequence[tuple[str | None, str]], seconds: float, memory: int, workers: int
) -> list[str]:
    """``"right"``, or what is wrong, for each ``(reference, answer)``."""
    found = ["timed out"] * len(pairs)
    with Progress(len(pairs), label="verify", unit="answers", inner=True) as progress:
        done: list[int] = []

        def work(todo: queue.SimpleQueue[Any]) -> None:
            worker = Worker("_worker_mathematics.py", (seconds, memory), _PATIENCE * seconds)
            try:
                while True:
                    try:
                        number, pair = todo.get_nowait()
                    except queue.Empty:
                        return
                    found[number] = worker.ask(pair) or "timed out"
                    done.append(number)
                    progress.update(len(done))
            finally:
                worker.close()

        in_threads(work, pairs, workers)
    return found
