"""What a student starts from: an earlier result, whole, or what is taken of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import models, registry
from jaxdistill._errors import unknown
from jaxdistill.data.records import subset
from jaxdistill.data.split import hashes
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.models import pretrained
from jaxdistill.objective import combine, weighted
from jaxdistill.recipe.planned import Plan, Planned, only_shapes

UNITS = ("first", "importance")
# How a net's importance to its labels is found, unless the config says otherwise.
LABELS = {"labels": {"loss": "cross_entropy", "target": "batch/label"}}


def variables(plan: Plan, planned: Planned, results: Mapping[str, Any]) -> Any:
    """The entries of ``(params, state)`` that ``initial`` of a stage gives its student.

    ``stage`` names the earlier result, of which are taken

    - ``parts``: ``{own path: path there}``, some trees alone, under the student's own paths;
    - ``layers``: those that a student of fewer layers has, see :func:`jaxdistill.models.layers_of`
      (``"spread"`` unless it is given), and
    - ``units``: those that a narrower one has, the ``"first"`` or, by ``"importance"``, the ones
      that are worth most to the ``objective`` (cross-entropy with the labels by default) on a few
      ``records`` (256) of the training set of that stage;
    - ``upcycle``: whether the MLPs of a dense decoder become the experts of a sparse one.

    Raises:
        ValueError: for nets that do not fit each other, and for ``units`` of an unknown kind.
    """
    settings = planned.settings["initial"]
    stage = plan.stage(settings["stage"])
    keys = [key for key in ("layers", "units", "records", "objective") if settings.get(key)]
    if not keys and not settings.get("upcycle"):
        return _parts(results[stage.name], settings.get("parts"))
    units = settings.get("units") or "first"
    if units not in UNITS:
        raise ValueError(unknown("choice of units to start from", units, UNITS))
    for key in ("records", "objective"):
        if key in keys and units != "importance":
            raise ValueError(f"'initial' reads {key!r} for units='importance' alone")
    here, there = _module(planned), _module(stage)

    whole, traced = results[stage.name], only_shapes([results[stage.name]])

    def start(whole):
        params, state = _parts(whole, settings.get("parts"))
        worth = None
        if units == "importance":
            slopes = _slopes(stage, settings, *whole)
            slopes, _ = _parts((slopes, whole[1]), settings.get("parts"))
            worth = models.importance(params, slopes, there)
        if keys:
            layers = settings.get("layers") or "spread"
            params = models.inherit(params, there, here, layers=layers, scores=worth)
        return models.upcycle(params, here) if settings.get("upcycle") else params, state

    return jax.eval_shape(start, whole) if traced else start(whole)


def _slopes(stage: Planned, settings: Mapping[str, Any], params: Any, state: Any) -> Any:
    """The gradient of an objective on a few records of a stage, in evaluation mode."""
    source = stage.data["train"]
    count = min(settings.get("records") or registry.BATCH, len(source))
    chosen = np.argsort(hashes(source.ids, "importance"), kind="stable")[:count]
    batches = evaluation_batches(subset(source, np.sort(chosen)), min(registry.BATCH, count))
    entries = settings.get("objective") or LABELS
    objective = combine({name: registry.match(name, entry, 0) for name, entry in entries.items()})
    taps = registry.student_taps(entries)
    prepare = registry.view(None, source.info)

    @jax.jit
    def slope(params, batch):
        batch = prepare(batch, jax.random.key(0))

        def loss(params):
            forward = stage.net.apply(params, state, batch["student"], taps=taps)
            own = objective.init(jax.random.key(0), forward, {}, batch)
            terms, _ = objective.terms(*own, forward, {}, batch, step=jnp.zeros((), jnp.int32))
            return weighted(terms, jnp.zeros((), jnp.int32))[0]

        return jax.grad(loss)(params)

    found = None
    for batch in batches:
        new = slope(params, {k: v for k, v in batch.items() if v.dtype.kind not in "OSU"})
        found = new if found is None else jax.tree.map(jnp.add, found, new)
    return found


def _module(planned: Planned) -> Any:
    given = planned.settings["checkpoint"]
    if pretrained.is_published(given):
        return pretrained.module_of(given)
    return registry.module(planned.settings["student"], planned.data["train"].info)


def _parts(result: Any, parts: Mapping[str, str] | None) -> Any:
    """Those parts of an earlier result that a student starts from, under its own paths."""
    if not parts:
        return result
    params, state = result
    return tuple(
        {own: _at(tree, there) for own, there in parts.items() if _at(tree, there) is not None}
        for tree in (params, state)
    )


def _at(tree: Any, path: str) -> Any:
    for key in path.split("/"):
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree
