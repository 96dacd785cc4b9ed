"""Weights of an objective's entries by how near their sources are to the task."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from jaxdistill import evaluation, registry
from jaxdistill._errors import unknown
from jaxdistill.data import split
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.recipe.planned import Plan, Planned, only_shapes

TRANSFER_KEYS = ("sources", "power", "labelled", "read", "pool")


def scores(plan: Plan, planned: Planned, results: Mapping[str, Any]) -> dict[str, float]:
    """The PARC score of every entry's source on a few labelled records, by entry."""
    settings = planned.settings["transfer"]
    seed = plan.config["seed"]
    train = split.labelled_subset(planned.data["train"], settings["labelled"], seed=seed)
    batches = evaluation_batches(train, min(registry.BATCH, len(train)))
    found = {}
    for entry, stage in settings["sources"].items():
        seen = evaluation.features(
            plan.stage(stage).net,
            results[stage],
            batches,
            settings.get("read", "out"),
            pool=settings.get("pool", "mean"),
        )
        found[entry] = evaluation.parc(seen.values, seen.labels)
    return found


def weights(
    plan: Plan, planned: Planned, results: Mapping[str, Any]
) -> tuple[dict[str, float], dict[str, float]]:
    """What multiplies the weight of each entry, and numbers to report.

    Results that are shapes alone give equal weights.

    Raises:
        ValueError: for an unknown key, entry or stage.
    """
    if not planned.settings["transfer"]:
        return {}, {}
    settings = _checked(plan, planned)
    entries = settings["sources"]
    if only_shapes(results[stage] for stage in entries.values()):
        return dict.fromkeys(entries, 1 / len(entries)), {}
    found = scores(plan, planned, results)
    worth = evaluation.source_weights(found, settings.get("power", 12.0))
    pairs = itertools.permutations(found, 2)
    return worth, {
        **{f"{a}_over_{b}": found[a] - found[b] for a, b in pairs},
        **{f"{entry}_score": score for entry, score in found.items()},
        **{f"{entry}_weight": value for entry, value in worth.items()},
    }


def _checked(plan: Plan, planned: Planned) -> dict[str, Any]:
    settings = dict(planned.settings["transfer"])
    for key in settings:
        if key not in TRANSFER_KEYS:
            raise ValueError(unknown(f"key of 'transfer' in {planned.name!r}", key, TRANSFER_KEYS))
    for key in ("sources", "labelled"):
        if not settings.get(key):
            raise ValueError(f"'transfer' in stage {planned.name!r} needs {key!r}")
    for entry, stage in settings["sources"].items():
        if entry not in planned.settings["objective"]:
            raise ValueError(
                unknown(f"entry of the objective in 'transfer' of {planned.name!r}", entry,
                        planned.settings["objective"])
            )  # fmt: skip
        if stage not in planned.needs:
            raise ValueError(unknown(f"source stage of {planned.name!r}", stage, planned.needs))
    return settings
