"""Contrastive distillation as an objective, whose memory banks are its state."""

from __future__ import annotations

from typing import Any

import jax

from jaxdistill import adapt, losses
from jaxdistill._errors import unknown
from jaxdistill.losses.masking import harmless
from jaxdistill.losses.numerics import l2_normalise
from jaxdistill.net import Net
from jaxdistill.objective import Objective, Term, lookup, per_example
from jaxdistill.settings import Count, Finite, Positive, Scheduled, Share


def contrastive(
    records: int | None = None,
    *,
    name: str = "crd",
    student: str = "pooled",
    target: str = "pooled",
    weight: Scheduled[Finite] = 1.0,
    examples: Count | None = None,
    width: Count = 128,
    negatives: Count | None = None,
    temperature: Positive = 0.07,
    momentum: Share = 0.5,
) -> Objective:
    """Contrastive representation distillation with its embeddings and its two memory banks, a row
    for every training record by its ``index`` in the batch.

    Args:
        records: how many training records there are.
        name: the term's name.
        student: vectors ``[B, D]``.
        target: vectors of any width.
        weight: a number or a schedule.
        examples: rows of the banks, as many as records by default.
        width: of the embeddings.
        negatives: how many rows each example is compared with, 16,384 by default, or a quarter of
            the rows where that is less.
        temperature: of the similarities.
        momentum: how much of a row stays.

    Raises:
        ValueError: for banks with fewer rows than there are records.

    References:
        Tian et al. Contrastive Representation Distillation. ICLR 2020.
    """
    rows = examples or records
    if rows is None:
        raise ValueError("it is not known how many training records there are: give 'examples'")
    if records is not None and rows < records:
        raise ValueError(
            f"examples={rows}: the banks hold a row for each training record, and there are "
            f"{records}"
        )

    compared = negatives or max(min(16384, rows // 4), 1)

    def embeddings(forward: Any, targets: Any, batch: Any) -> tuple[dict[str, Net], dict[str, Any]]:
        find = {"forward": forward, "targets": targets, "batch": batch}
        seen = {
            "student": lookup(student, **find),
            "teacher": lookup(target, side="target", **find),
        }
        made = {side: adapt.linear(x.shape, (*x.shape[:-1], width)) for side, x in seen.items()}
        return made, seen

    def init(key: Any, forward: Any, targets: Any, batch: Any) -> tuple[Any, Any]:
        if "index" not in batch:
            raise ValueError(unknown("key of the batch", "index", batch))
        made, seen = embeddings(forward, targets, batch)
        first, second, draws, bank = jax.random.split(key, 4)
        keys = {"student": first, "teacher": second}
        params = {side: net.init(keys[side], seen[side])[0] for side, net in made.items()}
        return params, {"bank": losses.crd_bank(bank, rows, width), "draws": draws}

    def terms(
        params: Any, state: Any, forward: Any, targets: Any, batch: Any, *, step: Any
    ) -> tuple[dict[str, Term], Any]:
        made, seen = embeddings(forward, targets, batch)
        where = batch.get("where")
        if where is not None:
            seen = harmless(seen, where)
        ours, theirs = (
            l2_normalise(made[side].apply(params[side], {}, seen[side]).out)
            for side in ("student", "teacher")
        )
        bank, index = state["bank"], batch["index"]
        drawn = jax.random.fold_in(state["draws"], step)
        chosen = losses.crd_negatives(drawn, index, bank, count=compared)
        shared = {"temperature": temperature}
        bank = losses.crd_calibrate(bank, ours, theirs, chosen, where=where, **shared)
        values = losses.crd(ours, theirs, bank, chosen, **shared)
        bank = losses.crd_update(bank, ours, theirs, index, momentum=momentum, where=where)
        return {name: per_example(weight, values, where)}, {**state, "bank": bank}

    return Objective(init, terms)
