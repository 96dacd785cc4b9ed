"""Every name of a config looked up, and every value checked against its domain."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn

from jaxdistill import condense, registry
from jaxdistill._errors import blamed, unknown
from jaxdistill.config import (
    ConfigKeys,
    choice_stages,
    data_stage,
    stage_settings,
    teachers,
    with_choices,
)
from jaxdistill.data import split
from jaxdistill.data.arrays import arrays
from jaxdistill.data.checks import check_sets
from jaxdistill.data.records import Source
from jaxdistill.distiller import Kind, Student, with_base
from jaxdistill.identities import identities, needs_of
from jaxdistill.models import pretrained
from jaxdistill.net import Net
from jaxdistill.overrides import override
from jaxdistill.recipe import given, stage_cache
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
    config["seed"] = config.get("seed") or ConfigKeys.seed
    with blamed("the config"):
        settings = stage_settings(config)
        hashes = identities(config)
    nets: dict[str, Net] = {}
    modules: dict[str, Any] = {}
    planned: list[Planned] = []
    faults: list[str] = []
    read = {} if read is None else read
    for place, name in enumerate(config["recipe"]):
        own = settings[name]
        part = config.get("data") if data_stage(own) else own["data"] or config.get("data")
        sets = _read(part, config["seed"], read) if part else split.Splits()
        needs = needs_of(name, own, config["recipe"][:place])
        if any(other not in (stage.name for stage in planned) for other in needs):
            continue  # what is wrong there is said already
        try:
            stage = Planned(name, own, None, needs, hashes[name], sets, awaits=_awaited(own))
            with blamed("its part of the config"):
                stage = _resolved(stage, config, nets, modules)
                _check_weights(stage, planned)
                given.check(stage, planned)
                _check_handed(stage, planned)
        except ValueError as fault:
            faults += [f"stage {name!r}: {line}" for line in str(fault).splitlines()]
            continue
        planned.append(stage)
        if stage.net is not None:
            nets[name], modules[name] = stage.net, stage.module
    if faults:
        raise ValueError("\n".join(faults))
    return Plan(config, tuple(planned), read)


def _read(part: Mapping[str, Any], seed: int, read: dict[str, split.Splits]) -> split.Splits:
    name = json.dumps([part, seed], sort_keys=True, default=str)
    if name not in read:
        with blamed(f"the data {part}"):
            found = registry.data(part, seed)
            check_sets(found)
        read[name] = found
    return read[name]


def _resolved(
    stage: Planned, config: Mapping[str, Any], nets: Mapping[str, Net], modules: Mapping[str, Any]
) -> Planned:
    """The stage with its net, once all its names are found and its values are within their domains.

    Raises:
        ValueError: listing what is wrong.
    """
    settings, seed = stage.settings, config["seed"]
    if settings["work"]:
        work = work_of(stage, nets, seed)
        stage = dataclasses.replace(stage, kind=work.kind, weighs=work.weighs)
        numbers = tuple(f"{work.kind}/{name}" for name in work.metrics)
    else:
        student, shares = net_of(settings, stage.info, nets), registry.shared(settings["student"])
        net = with_base(student, shares, nets) if shares else student  # type: ignore[arg-type]
        adapts = registry.adapts(settings["student"])
        module = modules.get(adapts) if adapts else module_of(settings, stage.info)
        parts = {"student": student, "net": net, "shares": shares, "module": module}
        stage = dataclasses.replace(stage, **parts)
        stage = dataclasses.replace(stage, kind=_kind_of(stage, nets, seed))
        numbers = ()
    told = (settings["student"] or {}).get("classes")
    if stage.data and told:
        # More than the training set knows of is fine, less is not.
        check_sets(stage.data, classes=told, files=False)
    if "train" in stage.data:
        registry.records(stage.data["train"], settings["records"], seed)
    stage_cache.settings_of(stage)
    start.check(stage)
    folder = settings["checkpoint"]
    if folder and not pretrained.is_published(folder) and not (Path(folder) / "result").is_dir():
        raise ValueError(
            f"checkpoint {folder!r} holds no result of a stage, nor the config.json of published "
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


def _awaited(settings: Mapping[str, Any]) -> tuple[str, ...]:
    source = data_stage(settings)
    return (*choice_stages(settings), *((source,) if source else ()))


def _check_handed(stage: Planned, earlier: Sequence[Planned]) -> None:
    """Refuses records and choices from stages that leave none, and settings that there are not."""
    kinds = {other.name: other.kind for other in earlier}
    source = data_stage(stage.settings)
    # What is wrong with an earlier stage is said there.
    if source and kinds.get(source, "records") not in ("records", "data_set"):
        raise ValueError(
            f"'data' names {source!r}, whose result is of the kind {kinds[source]!r}: only "
            "'records' and a 'data_set' can be trained on"
        )
    for name in choice_stages(stage.settings):
        if kinds.get(name, "choice") != "choice":
            raise ValueError(f"'chosen' names {name!r}, which chooses nothing")
    override(stage.settings, dict.fromkeys(stage.settings["chosen"] or {}))


def settled(plan: Plan, results: Mapping[str, Any]) -> Plan:
    """The plan with everything that waited for results that now exist.

    A stage that is trained on what an earlier one leaves gets it as its training set, and settings
    that an earlier choice decides get their values. Both are checked as while planning.

    Args:
        plan: the recipe.
        results: of stages, by name.

    Raises:
        ValueError: naming the stage, for records that do not fit the recipe's own data, and for
            choices that the settings cannot take.
    """
    if not any(planned.awaits for planned in plan.stages):
        return plan
    stages: list[Planned] = []
    for planned in plan.stages:
        if planned.awaits and all(name in results for name in planned.awaits):
            try:
                planned = _settled(plan, planned, results, stages)
            except ValueError as fault:
                raise ValueError(f"stage {planned.name!r}: {fault}") from fault
        stages.append(planned)
    return dataclasses.replace(plan, stages=tuple(stages), traced={})


def _settled(
    plan: Plan, planned: Planned, results: Mapping[str, Any], earlier: Sequence[Planned]
) -> Planned:
    settings, sets = with_choices(planned.settings, results), planned.data
    source = data_stage(settings)
    if source is not None:
        written = _source(source, plan.stage(source).kind, results[source], planned.info)
        sets = split.Splits({**sets, "train": written})
        check_sets(sets)
    stage = dataclasses.replace(planned, settings=settings, data=sets, awaits=())
    nets = {each.name: each.net for each in earlier if each.net}
    return _resolved(stage, plan.config, nets, {each.name: each.module for each in earlier})


def _source(stage: str, kind: Kind, result: Any, info: Mapping[str, Any]) -> Source:
    """What a stage left as a training set, of which is known what is known of the recipe's own."""
    columns = condense.as_records(result) if kind == "data_set" else result
    # What the writer of the other set has promised of it says nothing of this one.
    known = {key: value for key, value in info.items() if key not in ("declared", "hidden")}
    return dataclasses.replace(arrays(columns, name=stage), info=known)


def _kind_of(stage: Planned, nets: Mapping[str, Net], seed: int) -> Kind:
    """Makes the algorithm once, which resolves all its names, and asks what its result is."""
    context = context_of(stage, nets, seed)
    if stage.settings["between"]:
        registry.between(stage.settings["between"], context)
    data = "train" in stage.data
    # Codecs of a cache are known when shapes are.
    if data and stage_cache.is_cached(stage) and not stage.settings["distiller"]:
        context = dataclasses.replace(context, codecs={})
        for name, entry in stage.settings["objective"].items():
            registry.match(name, entry, context.steps)
        return "net"
    distiller = distiller_of(stage, context)
    if distiller.takes and not data and not stage.awaits:
        raise ValueError("its algorithm takes batches, and there is no data: give 'data'")
    return distiller.kind


def _metrics(
    stage: Planned, seed: int, nets: Mapping[str, Net], numbers: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The names of what is measured of a stage; None where an evaluator does not say them."""
    names: list[str] = list(numbers)
    said = True
    compared = () if stage_cache.is_cached(stage) else teachers(stage.settings["targets"])
    for label, spec in stage.settings["evaluate"].items():
        evaluator = evaluator_of(label, spec, stage, seed, nets, compared)
        found = getattr(evaluator, "metrics", None)
        said = said and found is not None
        shared = registry.evaluated(label, spec, stage.data)
        for part in shared.sets:
            names += [f"{part}/{name}" for name in found or ()]
            if shared.mean:
                names += [f"{part}/mean/{name}" for name in found or ()]
    return tuple(dict.fromkeys(names)) if said else None


def sees(info: Mapping[str, Any]) -> Literal["image", "text"]:
    """What a net sees of some data, by which a tower of a published network is chosen."""
    return "text" if "vocabulary" in info else "image"


def module_of(settings: Mapping[str, Any], info: Mapping[str, Any]) -> Any:
    """The Linen module of a stage's net; None where it is made otherwise, or there is none."""
    if pretrained.is_published(settings["checkpoint"]):
        return pretrained.module_of(settings["checkpoint"], sees(info))
    if not settings["student"] or registry.shared(settings["student"]):
        return None
    found = registry.net_module(settings["student"], info)
    return found if isinstance(found, nn.Module) else None


def net_of(
    settings: Mapping[str, Any], info: Mapping[str, Any], nets: Mapping[str, Net]
) -> Student | None:
    """The student that a stage names, or the published one that takes its place; None for an
    algorithm that has no net."""
    if pretrained.is_published(settings["checkpoint"]):
        return registry.lifted(pretrained.module_of(settings["checkpoint"], sees(info)))
    return registry.net(settings["student"], info, nets) if settings["student"] else None
