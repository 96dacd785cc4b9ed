"""How much ground truth a self-distilled student should see, estimated from two earlier stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import evaluation, registry, theory
from jaxdistill._errors import unknown
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.recipe.planned import Plan, Planned, only_shapes

# The stages, the entries of the objective, and what of the nets is compared.
STAGES, ENTRIES, OUTPUTS = ("first", "alone"), ("labels", "teacher"), ("probabilities", "out")
GUIDANCE_KEYS = (*STAGES, *ENTRIES, "outputs", "clip")


def weights(
    plan: Plan, planned: Planned, results: Mapping[str, Any]
) -> tuple[dict[str, float], dict[str, float]]:
    """What multiplies the entries of labels and teacher, and numbers to report.

    The best weight of the ground truth is that of :func:`jaxdistill.theory.optimal_weight` on the
    validation set, of the answers of a net that was trained on labels alone and of one that was
    trained on the teacher alone: one training more than without, in place of one for each weight
    of a grid. It is exact for nets that are linear in their parameters.

    Results that are shapes alone give one half.

    Raises:
        ValueError: for an unknown key, entry or stage.
    """
    if not planned.settings["guidance"]:
        return {}, {}
    settings = _checked(planned)
    labels, teacher = settings["labels"], settings["teacher"]
    if only_shapes(results[settings[stage]] for stage in STAGES):
        return {labels: 0.5, teacher: 0.5}, {}
    wanted, first, alone = _predictions(plan, planned, results, settings)
    found = theory.optimal_weight(wanted, first, alone, clip=settings.get("clip", True))
    weight = float(found.weight)
    return {labels: weight, teacher: 1 - weight}, {
        "weight": weight,
        "free_weight": float(found.free),
        "expected_error": float(found.error) / len(wanted),
        "first_error": float(jnp.square(wanted - first).sum()) / len(wanted),
        "alone_error": float(jnp.square(wanted - alone).sum()) / len(wanted),
    }


def _predictions(
    plan: Plan, planned: Planned, results: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[jax.Array, ...]:
    """Targets ``[n, c]`` of the validation set, and what the two nets say there."""
    source = planned.data["validation"]
    batches = evaluation_batches(source, min(registry.BATCH, len(source)))
    answers, labels = [], None
    for stage in STAGES:
        name = settings[stage]
        seen = evaluation.features(plan.stage(name).net, results[name], batches)
        answers.append(jnp.asarray(seen.values))
        labels = np.asarray(seen.labels)
    if settings.get("outputs", "probabilities") == "probabilities":
        answers = [jax.nn.softmax(answer) for answer in answers]
    return evaluation.as_targets(jnp.asarray(labels), answers[0].shape[-1]), *answers


def _checked(planned: Planned) -> dict[str, Any]:
    settings = dict(planned.settings["guidance"])
    where = f"'guidance' of stage {planned.name!r}"
    for key in settings:
        if key not in GUIDANCE_KEYS:
            raise ValueError(unknown(f"key of {where}", key, GUIDANCE_KEYS))
    for key in (*STAGES, *ENTRIES):
        if not settings.get(key):
            raise ValueError(f"{where} needs {key!r}")
    for key in ENTRIES:
        if settings[key] not in planned.settings["objective"]:
            raise ValueError(
                unknown(f"entry of the objective in {where}", settings[key],
                        planned.settings["objective"])
            )  # fmt: skip
    if settings.get("outputs", "probabilities") not in OUTPUTS:
        raise ValueError(unknown(f"outputs in {where}", settings["outputs"], OUTPUTS))
    if "validation" not in planned.data:
        raise ValueError(f"{where} is estimated on the validation set, and there is none")
    return settings
