"""What a student starts from: an earlier result, whole, or what is taken of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

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
from jaxdistill.progress import shown
from jaxdistill.recipe.planned import Plan, Planned, only_shapes
from jaxdistill.settings import Count, Earlier, Natural

# How a net's importance to its labels is found, unless the config says otherwise.
LABELS = {"labels": {"loss": "cross_entropy", "target": "batch/label"}}


@dataclasses.dataclass(frozen=True)
class Initial:
    """What ``initial`` of a stage may say.

    Attributes:
        stage: the earlier result, of which are taken:
        parts: ``{own path: path there}``, some trees alone, under the student's own paths, or
            ``{"": path there}``, one tree as the whole student;
        layers: those that a student of fewer layers has, see :func:`jaxdistill.models.layers_of`
            (``"spread"`` unless it is given);
        units: those that a narrower one has, the ``"first"`` or, by ``"importance"``, the ones that
            are worth most to the ``objective``;
        records: on how many of the training set of that stage importance is found (256);
        objective: what units are worth something to, cross-entropy with the labels by default;
        upcycle: whether the MLPs of a dense decoder become the experts of a sparse one.
    """

    stage: Earlier
    parts: Mapping[str, str] | None = None
    layers: str | Sequence[Natural] | None = None
    units: Literal["first", "importance"] | None = None
    records: Count | None = None
    objective: Mapping[str, Mapping[str, Any]] | None = None
    upcycle: bool = False


def check(planned: Planned) -> Initial | None:
    """What a stage says of its start, checked.

    Raises:
        ValueError: for an unknown key, a value outside its domain, and for what goes with
            ``units="importance"`` alone.
    """
    if not planned.settings["initial"]:
        return None
    said = registry.record("'initial'", Initial, planned.settings["initial"])
    for key in ("records", "objective"):
        if getattr(said, key) and said.units != "importance":
            raise ValueError(f"'initial' reads {key!r} for units='importance' alone")
    return said


def variables(plan: Plan, planned: Planned, results: Mapping[str, Any]) -> Any:
    """The entries of ``(params, state)`` that ``initial`` of a stage gives its student, see
    :class:`Initial`.

    Raises:
        ValueError: for nets that do not fit each other, and for parts that are not there.
    """
    said = check(planned)
    assert said is not None
    stage = plan.stage(said.stage)
    narrowed = bool(said.layers or said.units or said.records or said.objective)
    if not narrowed and not said.upcycle:
        return _parts(results[stage.name], said.parts)
    here, there = _module(planned), _module(stage)

    whole, traced = results[stage.name], only_shapes(results[stage.name])

    def start(whole):
        params, state = _parts(whole, said.parts)
        worth = None
        if said.units == "importance":
            slopes = _slopes(stage, said, *whole)
            slopes, _ = _parts((slopes, whole[1]), said.parts)
            worth = models.importance(params, slopes, there)
        if narrowed:
            layers = said.layers or "spread"
            params = models.inherit(params, there, here, layers=layers, scores=worth)
        return models.upcycle(params, here) if said.upcycle else params, state

    return jax.eval_shape(start, whole) if traced else start(whole)


def _slopes(stage: Planned, said: Initial, params: Any, state: Any) -> Any:
    """The gradient of an objective on a few records of a stage, in evaluation mode."""
    source = stage.data["train"]
    count = min(said.records or registry.BATCH, len(source))
    chosen = np.argsort(hashes(source.ids, "importance"), kind="stable")[:count]
    batches = evaluation_batches(subset(source, np.sort(chosen)), min(registry.BATCH, count))
    entries = said.objective or LABELS
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
    for batch in shown(batches, "weigh layers"):
        new = slope(params, {k: v for k, v in batch.items() if v.dtype.kind not in "OSU"})
        found = new if found is None else jax.tree.map(jnp.add, found, new)
    return found


def _module(planned: Planned) -> Any:
    given = planned.settings["checkpoint"]
    if pretrained.is_published(given):
        sees = "text" if "vocabulary" in planned.info else "image"
        return pretrained.module_of(given, sees)
    return registry.net_module(planned.settings["student"], planned.info)


def _parts(result: Any, parts: Mapping[str, str] | None) -> Any:
    """Those parts of an earlier result that a student starts from, under its own paths."""
    if not parts:
        return result
    params, state = result
    for there in parts.values():
        if _at(params, there) is None:
            raise ValueError(unknown("part to start from", there, _paths(params)))
    if set(parts) == {""}:
        return _at(params, parts[""]), _at(state, parts[""]) or {}
    return tuple(
        {own: _at(tree, there) for own, there in parts.items() if _at(tree, there) is not None}
        for tree in (params, state)
    )


def _paths(tree: Any, above: str = "") -> list[str]:
    """The paths of all trees within a tree of parameters."""
    found = []
    for key, inner in tree.items() if isinstance(tree, Mapping) else ():
        path = f"{above}/{key}" if above else str(key)
        found += [path, *_paths(inner, path)] if isinstance(inner, Mapping) else []
    return found


def _at(tree: Any, path: str) -> Any:
    for key in path.split("/"):
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree
