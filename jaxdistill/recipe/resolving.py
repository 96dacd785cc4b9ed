"""Every name of a config looked up, and every value held against its domain."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdistill import registry
from jaxdistill._errors import unknown
from jaxdistill.config import stage_settings, target_stages
from jaxdistill.data import split
from jaxdistill.data.checks import check_sets
from jaxdistill.distiller import Kind
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.identities import identities, needs_of
from jaxdistill.models import pretrained
from jaxdistill.net import Net
from jaxdistill.recipe import caches
from jaxdistill.recipe import initial as start
from jaxdistill.recipe.planned import Plan, Planned
from jaxdistill.recipe.stages import context_of, distiller_of, evaluator_of, work_of


def resolve(config: Mapping[str, Any], read: dict[str, split.Splits] | None = None) -> Plan:
    """Resolves every name of a config and checks every value, without tracing anything.

    Args:
        config: as plain data.
        read: sets that are read already, by what names them; what is read is added.

    Raises:
        ValueError: listing all faults, a line each.
    """
    config = copy.deepcopy(dict(config))
    settings = stage_settings(config)
    hashes = identities(config)
    nets: dict[str, Net] = {}
    planned: list[Planned] = []
    faults: list[str] = []
    read = {} if read is None else read
    for place, name in enumerate(config["recipe"]):
        own = settings[name]
        part = own["data"] or config.get("data")
        sets = _read(part, config["seed"], read) if part else split.Splits()
        needs = needs_of(name, own, config["recipe"][:place])
        try:
            stage = _resolved(Planned(name, own, None, needs, hashes[name], sets), config, nets)
            _check_weights(stage, planned)
        except ValueError as fault:
            faults += [f"stage {name!r}: {line}" for line in str(fault).splitlines()]
            continue
        planned.append(stage)
        if stage.net is not None:
            nets[name] = stage.net
    if faults:
        raise ValueError("\n".join(faults))
    return Plan(config, tuple(planned), read)


def _read(part: Mapping[str, Any], seed: int, read: dict[str, split.Splits]) -> split.Splits:
    name = json.dumps([part, seed], sort_keys=True, default=str)
    if name not in read:
        found = registry.data(part, seed)
        check_sets(found)
        read[name] = found
    return read[name]


def _resolved(stage: Planned, config: Mapping[str, Any], nets: Mapping[str, Net]) -> Planned:
    """The stage with its net, once all its names are found and its values are within their domains.

    Raises:
        ValueError: listing what is wrong.
    """
    settings, seed = stage.settings, config["seed"]
    if settings["work"]:
        work = work_of(stage, nets, seed)
        stage = dataclasses.replace(stage, kind=work.kind, weighs=work.weighs)
        numbers = tuple(f"choice/{name}" for name in work.metrics)
    else:
        stage = dataclasses.replace(stage, net=net_of(settings, stage.info))
        stage = dataclasses.replace(stage, kind=_kind_of(stage, nets, seed))
        numbers = ()
    if "train" in stage.data:
        registry.records(stage.data["train"], settings["records"], seed)
    caches.settings_of(stage)
    start.check(stage)
    given = settings["checkpoint"]
    if given and not pretrained.is_published(given) and not (Path(given) / "result").is_dir():
        raise ValueError(
            f"checkpoint {given!r} holds no result of a stage, nor the config.json of published "
            "weights"
        )
    stage = dataclasses.replace(stage, metrics=_metrics(stage, seed, nets, numbers))
    best = settings["best"]
    if best and stage.metrics is not None and best[0] not in stage.metrics:
        raise ValueError(unknown("metric in 'best'", best[0], stage.metrics))
    return stage


def _check_weights(stage: Planned, earlier: Sequence[Planned]) -> None:
    """Refuses weights of entries that the stage's objective does not have."""
    chosen = stage.settings["weights"]
    for other in earlier if chosen else ():
        if other.name == chosen and not other.weighs:
            raise ValueError(f"'weights' names {chosen!r}, which chooses no weights")
        for entry in other.weighs if other.name == chosen else ():
            if entry not in stage.settings["objective"]:
                entries = stage.settings["objective"]
                raise ValueError(unknown(f"entry that {chosen!r} weighs", entry, entries))


def _kind_of(stage: Planned, nets: Mapping[str, Net], seed: int) -> Kind:
    """Makes the algorithm once, which resolves all its names, and asks what its result is."""
    context = context_of(stage, nets, seed)
    if stage.settings["between"]:
        registry.between(stage.settings["between"], context)
    data = "train" in stage.data
    # Codecs of a cache are known when shapes are.
    if data and caches.is_cached(stage) and not stage.settings["distiller"]:
        context = dataclasses.replace(context, codecs={})
        for name, entry in stage.settings["objective"].items():
            registry.match(name, entry, context.steps)
        return "net"
    distiller = distiller_of(stage, context)
    if distiller.takes and not data:
        raise ValueError("its algorithm takes batches, and there is no data: give 'data'")
    return distiller.kind


def _metrics(
    stage: Planned, seed: int, nets: Mapping[str, Net], numbers: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The names of what is measured of a stage; None where an evaluator does not say them."""
    names: list[str] = list(numbers)
    said = True
    compared = () if caches.is_cached(stage) else target_stages(stage.settings["targets"])
    for label, spec in stage.settings["evaluate"].items():
        evaluator = evaluator_of(label, spec, stage, seed, nets, compared)
        found = getattr(evaluator, "metrics", None)
        said = said and found is not None
        for part in registry.evaluated(label, spec, stage.data).sets:
            names += [f"{part}/{name}" for name in found or ()]
    return tuple(dict.fromkeys(names)) if said else None


def net_of(settings: Mapping[str, Any], info: Mapping[str, Any]) -> Net | None:
    """The student that a stage names, or the published one that takes its place; None for an
    algorithm that has no net."""
    if pretrained.is_published(settings["checkpoint"]):
        return from_linen(pretrained.module_of(settings["checkpoint"]))
    return registry.net(settings["student"], info) if settings["student"] else None
