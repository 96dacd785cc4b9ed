"""Caches in a recipe: what a stage's teachers gave, written before the stage runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxdistill import registry, targets
from jaxdistill._errors import unknown
from jaxdistill.config import frozen_stages
from jaxdistill.data.records import Source
from jaxdistill.progress import shown
from jaxdistill.recipe.planned import Plan, Planned
from jaxdistill.settings import Count, Natural
from jaxdistill.store import Codec, Store, open_store
from jaxdistill.targets.cached import CACHED, decoded
from jaxdistill.training import teacher_cache
from jaxdistill.training.checkpoint import digest


@dataclasses.dataclass(frozen=True)
class Cached:
    """What ``cached`` of a stage's targets may say.

    Attributes:
        outputs: for outputs of the teachers a codec with its keywords; dense by default.
        views: how many views of each record.
        seed: of the views.
        container: in what kind of file rows are kept.
        path: the folder, in place of one in the working directory.
        batch_size: records that a teacher sees at once.
        part_bytes: about the size of a file.
    """

    outputs: Mapping[str, Mapping[str, Any]] | None = None
    views: Count | None = None
    seed: Natural | None = None
    container: Literal["array_record", "npy", "zarr"] | None = None
    path: str | None = None
    batch_size: Count | None = None
    part_bytes: Count | None = None


def is_cached(planned: Planned) -> bool:
    """Whether the stage's teachers are read from disk."""
    return bool(_said(planned))


def cached_stages(plan: Plan) -> list[Planned]:
    """The stages of a recipe whose teachers are cached."""
    return [planned for planned in plan.stages if is_cached(planned)]


def cache_of(plan: Plan, planned: Planned, results: Mapping[str, Any]) -> teacher_cache.Cache:
    """What the cache of a stage holds.

    Raises:
        ValueError: for an unknown key, and for an output that the stage does not read.
    """
    settings = settings_of(planned)
    stored = _stored(planned)
    nets = plan.nets
    names = [f"{stage}/{name}" for stage, kept in stored.items() for name in kept]
    given = dict(settings.get("outputs") or {})
    for key in given:
        if key not in names and key not in {name.split("/", 1)[1] for name in names}:
            raise ValueError(unknown(f"output to cache for stage {planned.name!r}", key, names))
    outputs = {
        name: given.get(name) or given.get(name.split("/", 1)[1]) or {"codec": "dense"}
        for name in names
    }
    live = {
        stage: targets.live(nets[stage], stage, inputs="teacher", taps=_taps(kept))
        for stage, kept in stored.items()
    }
    view = planned.settings["view"] or {}
    records = planned.settings["records"] or {}
    mix = (view.get("mix") or {}).get("name")
    if mix in registry.OF_A_BATCH:
        raise ValueError(
            f"the view of stage {planned.name!r} mixes by {mix!r}, which draws for every batch "
            "which images stay as they are, so that what its teachers say of a record cannot be "
            "cached: take 'cached' out, or mix all pairs by 'mixup'"
        )
    if records.get("views"):
        raise ValueError(
            f"the views of stage {planned.name!r} are those of its cache: give 'views' to "
            "'cached', not to 'records'"
        )
    return teacher_cache.Cache(
        source=registry.pool(planned.data["train"], records, plan.config["seed"]),
        targets=targets.merge(live),
        frozen={name: results[name] for name in stored},
        outputs=outputs,
        prepare=registry.view(view, planned.info),
        views=settings.get("views") or 1,
        seed=settings.get("seed") or 0,
        pairs=bool(view.get("mix")),
        about={
            "nets": {name: plan.stage(name).settings["student"] for name in stored},
            "data": _data(plan, planned),
            "preprocessing": view,
        },
    )


def settings_of(planned: Planned) -> dict[str, Any]:
    """What the stage says of its cache, checked; what it does not say is left out."""
    said = registry.record("'cached'", Cached, _said(planned))
    return registry.without(dataclasses.asdict(said))


def path_of(plan: Plan, planned: Planned, root: Path | str) -> Path:
    """The folder of a stage's cache: the one that is given, or one by what it depends on."""
    settings = settings_of(planned)
    if settings.get("path"):
        return Path(settings["path"])
    stored = _stored(planned)
    depends = {
        "teachers": {name: plan.stage(name).identity for name in stored},
        "outputs": settings.get("outputs"),
        "views": [settings.get("views") or 1, settings.get("seed") or 0],
        "container": settings.get("container"),
        "view": planned.settings["view"],
        "records": planned.settings["records"],
        "data": _data(plan, planned),
        "read": stored,
    }
    return Path(root) / "caches" / f"{planned.name}-{digest(depends)}"


def write_cache(
    plan: Plan,
    planned: Planned,
    results: Mapping[str, Any],
    root: Path | str,
    *,
    mesh: jax.sharding.Mesh | None = None,
    rules: Sequence[tuple[str, Any]] = (),
    quiet: bool = False,
) -> Store:
    """Writes the cache of a stage, resumes it, or opens it when it is complete."""
    settings = settings_of(planned)
    chosen = {
        key: settings[key] for key in ("container", "batch_size", "part_bytes") if settings.get(key)
    }
    cache = cache_of(plan, planned, results)
    path = path_of(plan, planned, root)
    return teacher_cache.write(cache, path, mesh=mesh, rules=rules, quiet=quiet, **chosen)


def open_cache(
    plan: Plan,
    planned: Planned,
    results: Mapping[str, Any],
    root: Path | str,
    *,
    damage: Literal["refuse", "skip"] = "refuse",
) -> Store:
    """Opens the cache of a stage, and refuses one of anything else."""
    cache = cache_of(plan, planned, results)
    return open_store(path_of(plan, planned, root), teacher_cache.identity(cache), damage=damage)


def attached(
    plan: Plan, planned: Planned, results: Mapping[str, Any], store: Store | None
) -> tuple[Source, dict[str, Codec]]:
    """The records of a stage with what its teachers gave, and the codecs to decode that.

    Without a store, zeros stand for it, so that the stage can be traced.
    """
    cache = cache_of(plan, planned, results)
    codecs = teacher_cache.codecs(cache)
    records, seed = planned.settings["records"], plan.config["seed"]
    train = planned.data["train"]
    if store is None:
        chosen = registry.records(train, records, seed)
        return _zeros(dataclasses.replace(cache, source=chosen).records(), codecs), codecs
    scores = None
    if (records or {}).get("selected"):
        scores = _scores(cache.source, store, codecs)
    return targets.attach(registry.records(train, records, seed, scores), store), codecs


def _scores(source: Source, store: Store, codecs: Mapping[str, Codec]) -> dict[str, np.ndarray]:
    """By the id of every record the mean probabilities that the teachers give its first view."""
    view = targets.attach(source, store)
    outputs = [name for name in codecs if name.endswith("/out")]

    def probabilities(batch):
        found = [jax.nn.softmax(decoded(codecs[name], name, batch)) for name in outputs]
        return sum(found) / len(found)

    step = jax.jit(probabilities)
    rows = []
    for start in shown(range(0, len(source), registry.BATCH), "read the cache"):
        batch = view.gather(np.arange(start, min(start + registry.BATCH, len(source))))
        rows.append(np.asarray(step({k: v for k, v in batch.items() if k.startswith(CACHED)})))
    return dict(zip(source.ids, np.concatenate(rows), strict=True))


def _zeros(source: Source, codecs: Mapping[str, Codec]) -> Source:
    def read(rows):
        found = {k: v for k, v in source.read(rows).items() if k != "partner"}
        for name, codec in codecs.items():
            for field, spec in codec.fields.items():
                found[f"{CACHED}{name}/{field}"] = np.zeros((len(rows), *spec.shape), spec.dtype)
        return found

    return Source(source.name, source.ids, read, source.info, source.read_labels)


def _stored(planned: Planned) -> dict[str, tuple[str, ...]]:
    """For every cached teacher the outputs that the stage reads."""
    if planned.settings["distiller"]:
        # An algorithm of its own reads what its teacher says.
        return dict.fromkeys(frozen_stages(planned.settings), ("out",))
    paths = registry.target_paths(planned.settings["objective"])
    return registry.stored(planned.settings["targets"], paths)


def _said(planned: Planned) -> Mapping[str, Any] | None:
    """``cached`` of the stage's targets, or of its own algorithm."""
    return (planned.settings["targets"] or planned.settings["distiller"] or {}).get("cached")


def _data(plan: Plan, planned: Planned) -> dict[str, Any]:
    # Where the files lie does not change what they hold.
    data = planned.settings["data"] or plan.config.get("data") or {}
    if "stage" in data:
        return {"stage": plan.stage(data["stage"]).identity}
    return {key: value for key, value in data.items() if key != "dir"}


def _taps(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name != "out")
