"""The parts of a cache: which steps fill them, and what is refused in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdistill.data.records import Records, Source
from jaxdistill.store import Unfinished, manifest
from jaxdistill.training.processes import least


def schedule(unfinished: Unfinished, records: int, local: int) -> tuple[list[tuple[int, int]], int]:
    """The part and the first row of every step that is left, and how many there are in all."""
    # All processes take as many steps as the first, whose share is the largest.
    share = dataclasses.replace(unfinished, first=0, last=-(-records // jax.process_count()))
    sizes = [last - first for first, last in share.parts()]
    rows = [
        (part, unfinished.first + part * unfinished.part_rows + step * local)
        for part in range(least(unfinished.whole()), len(sizes))
        for step in range(-(-sizes[part] // local))
    ]
    return rows, sum(-(-size // local) for size in sizes)


def store_part(
    source: Source,
    outputs: Mapping[str, Mapping[str, Any]],
    unfinished: Unfinished,
    part: int,
    pieces: Sequence[tuple[Records, Records, Records]],
) -> None:
    """Writes one part, unless an answer in it is no number, or further off than is allowed."""
    if part >= len(unfinished.parts()):
        return
    first, last = unfinished.parts()[part]
    arrays, measures, fine = (
        {key: np.concatenate([x[key] for x in each])[: last - first] for key in each[0]}
        for each in zip(*pieces, strict=True)
    )
    ids = [source.ids[int(i)] for i in np.arange(first, last) % len(source)]
    arrays["id"] = manifest.digests(ids)
    for name, good in fine.items():
        if not good.all():
            bad = np.flatnonzero(~good)
            raise FloatingPointError(
                f"the teacher's {name!r} is not finite for {len(bad)} of the records {first} to "
                f"{last - 1}, the first of them {', '.join(repr(ids[i]) for i in bad[:3])}: "
                "nothing of them is stored"
            )
    limits = {
        f"{name}/error_bound": settings["bound"]
        for name, settings in outputs.items()
        if settings.get("bound") is not None
    }
    _refuse_beyond(limits, measures, ids)
    unfinished.write(part, arrays, measures)


def _refuse_beyond(limits: Mapping[str, float], measures: Records, ids: Sequence[str]) -> None:
    for name, limit in limits.items():
        values = measures[name]
        if not (values <= limit).all():
            worst = int(np.argmax(np.where(np.isnan(values), np.inf, values)))
            raise ValueError(
                f"{name} of record {ids[worst]!r} is {values[worst]:.3g}, above the bound {limit}: "
                "raise the bound, or take the codec 'dense'"
            )
