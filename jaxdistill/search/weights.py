"""Weights of an objective's entries, from the results of earlier stages."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import evaluation, theory
from jaxdistill.data import split
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.distiller import Work
from jaxdistill.evaluation.representations import Pool
from jaxdistill.net import Net
from jaxdistill.settings import Count, Earlier, NonNegative, Share

# Records in a batch of what is measured.
BATCH = 256


def guided_weights(
    nets: Mapping[str, Net],
    sets: Mapping[str, Any],
    *,
    first: Earlier,
    alone: Earlier,
    labels: str = "labels",
    teacher: str = "teacher",
    outputs: Literal["probabilities", "out"] = "probabilities",
    clip: bool = True,
) -> Work:
    """How much ground truth a self-distilled student should see, from two earlier trainings.

    The best weight of the ground truth is that of :func:`jaxdistill.theory.optimal_weight` on the
    validation set, of the answers of a net that was trained on labels alone and of one that was
    trained on the teacher alone: one training more than without, in place of one for each weight
    of a grid. It is exact for nets that are linear in their parameters.

    Args:
        nets: of the earlier stages.
        sets: of the stage, by name.
        first: the stage that was trained on labels alone.
        alone: the one that was trained on its teacher alone.
        labels: the entry of the later objective that holds the ground truth.
        teacher: its entry that holds the teacher.
        outputs: what of the nets is compared.
        clip: whether the weight is kept within 0 and 1.

    Returns:
        Work whose choice holds ``weights``, what multiplies either entry, ``weight``, that of the
        ground truth, ``free_weight`` before it is clipped, and the mean squared errors
        ``expected_error``, ``first_error`` and ``alone_error``.

    Raises:
        ValueError: where there is no validation set.

    References:
        Borup and Andersen, Even your Teacher Needs Guidance, NeurIPS 2021.
    """

    if not len(sets.get("validation", ())):
        raise ValueError("'guided_weights' is estimated on the validation set, and there is none")

    def run(results: Mapping[str, Any], data: split.Splits, key: jax.Array) -> dict[str, Any]:
        del key
        batches = evaluation_batches(data["validation"], min(BATCH, len(data["validation"])))
        seen = [evaluation.features(nets[name], results[name], batches) for name in (first, alone)]
        answers = [jnp.asarray(each.values) for each in seen]
        if outputs == "probabilities":
            answers = [jax.nn.softmax(answer) for answer in answers]
        known = jnp.asarray(np.asarray(seen[0].labels))
        wanted = evaluation.as_targets(known, answers[0].shape[-1])
        found = theory.optimal_weight(wanted, *answers, clip=clip)
        weight = float(found.weight)
        return {
            "weights": {labels: weight, teacher: 1 - weight},
            "weight": weight,
            "free_weight": float(found.free),
            "expected_error": float(found.error) / len(wanted),
            "first_error": float(jnp.square(wanted - answers[0]).sum()) / len(wanted),
            "alone_error": float(jnp.square(wanted - answers[1]).sum()) / len(wanted),
        }

    names = ("weight", "free_weight", "expected_error", "first_error", "alone_error")
    return Work(run, "choice", names, weighs=(labels, teacher))


def transfer_weights(
    nets: Mapping[str, Net],
    seed: int,
    *,
    sources: Mapping[str, Earlier],
    labelled: Count,
    share: tuple[Share, Share] | None = None,
    power: NonNegative | Literal["nearest"] = 12.0,
    read: str = "out",
    pool: Pool = "mean",
) -> Work:
    """How near trained nets are to a task, by PARC on a few labelled records.

    Args:
        nets: of the earlier stages.
        seed: of the run, which chooses the labelled records.
        sources: for every entry of the later objective the stage that it learns from.
        labelled: how many records.
        share: from where to where these lie among all records, as ``records`` of the later stage
            says it: a source that has learnt from the others is not scored on what it knows.
        power: of the scores; ``"nearest"`` for the best source alone.
        read: which features: ``"out"`` or a tap.
        pool: how features of several places become one.

    Returns:
        Work whose choice holds ``weights``, what multiplies each entry, and for every entry
        ``<entry>_score`` and ``<entry>_weight``, for every pair ``<a>_over_<b>``.

    References:
        Borup et al., Distilling from Similar Tasks for Transfer Learning on a Budget, ICCV 2023.
    """

    def run(results: Mapping[str, Any], data: split.Splits, key: jax.Array) -> dict[str, Any]:
        del key
        train = split.share(data["train"], *share) if share else data["train"]
        train = split.labelled_subset(train, labelled, seed=seed)
        batches = evaluation_batches(train, min(BATCH, len(train)))
        found = {}
        for entry, stage in sources.items():
            seen = evaluation.features(nets[stage], results[stage], batches, read, pool=pool)
            found[entry] = float(evaluation.parc(seen.values, seen.labels))
        worth = evaluation.source_weights(found, power)
        return {
            "weights": {entry: float(value) for entry, value in worth.items()},
            **{f"{a}_over_{b}": found[a] - found[b] for a, b in itertools.permutations(found, 2)},
            **{f"{entry}_score": score for entry, score in found.items()},
            **{f"{entry}_weight": float(value) for entry, value in worth.items()},
        }

    names = (
        *(f"{a}_over_{b}" for a, b in itertools.permutations(sources, 2)),
        *(f"{entry}_{kind}" for entry in sources for kind in ("score", "weight")),
    )
    return Work(run, "choice", names, weighs=tuple(sources))
