"""Planning a recipe, running it, and getting a result back."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxdistill import registry
from jaxdistill._errors import unknown
from jaxdistill._files import Damaged, read_sealed, write_sealed
from jaxdistill.config import stage_settings, target_stages
from jaxdistill.data import split
from jaxdistill.data.checks import check_sets, warn_of_duplicates
from jaxdistill.distiller import Kind
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.identities import identities, needs_of
from jaxdistill.models import pretrained
from jaxdistill.net import Net
from jaxdistill.recipe import caches
from jaxdistill.recipe import initial as start
from jaxdistill.recipe.planned import Plan, Planned, Restored, folder
from jaxdistill.recipe.stages import (
    context_of,
    distiller_of,
    evaluator_of,
    measured_of,
    stage_of,
    work_of,
)
from jaxdistill.training.checkpoint import refuse_other_arrays
from jaxdistill.training.fit import load_result
from jaxdistill.training.loop import Outcome, Stage, abstract, check, first_batch, run_stage
from jaxdistill.training.metrics import Writer
from jaxdistill.training.processes import is_first
from jaxdistill.training.sharding import make_mesh
from jaxdistill.training.works import run_work


def plan(config: Mapping[str, Any]) -> Plan:
    """Resolves every name of a config, and traces every stage on shapes alone.

    A misspelt tap of the last stage is said before the first one trains.

    Raises:
        ValueError: listing every unknown key or name, with the nearest valid one, and every value
            outside its domain; for taps, features and results that do not fit, naming the stage;
            for a mesh that there is not.
        FileNotFoundError: for a data set that is not there, with how to prepare it.
    """
    found = resolve(config)
    make_mesh(found.config.get("mesh"))
    shapes(found)
    return found


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
        stage = dataclasses.replace(stage, net=_net_of(settings, stage.info))
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


def run(
    plan: Plan,
    root: Path | str,
    *,
    stages: Sequence[str] | None = None,
    writers: Sequence[Writer] = (),
    quiet: bool = False,
) -> dict[str, Outcome]:
    """Runs the stages of a plan in order, each in ``root/stages/<name>-<identity>``.

    Args:
        plan: the recipe.
        root: the working directory.
        stages: which stages to run, each with those it builds on; all by default.
        writers: further places for the metrics.
        quiet: no progress bars.

    Besides them ``root/data.json`` says what nets must know of the data, so that a result can be
    restored without it.

    Returns:
        What every stage left, by name.
    """
    mesh = make_mesh(plan.config.get("mesh"))
    rules = tuple(plan.config.get("rules") or ())
    Path(root).mkdir(parents=True, exist_ok=True)
    if is_first():
        _note(Path(root) / "data.json", {p.name: _known(p) for p in plan.stages})
    for sets in plan.read.values() if is_first() else ():
        warn_of_duplicates(sets)
    outcomes: dict[str, Outcome] = {}
    wanted = _with_needs(plan, stages) if stages is not None else {p.name for p in plan.stages}
    for planned in plan.stages:
        if planned.name not in wanted:
            continue
        results = {name: outcomes[name].result for name in planned.needs}
        store = None
        if caches.is_cached(planned):
            store = caches.write_cache(
                plan, planned, results, root, mesh=mesh, rules=rules, quiet=quiet
            )
        if planned.settings["work"]:
            outcomes[planned.name] = _worked(plan, planned, results, root)
            continue
        stage = stage_of(plan, planned, results, store)
        if planned.settings["checkpoint"]:
            outcomes[planned.name] = _given(planned, stage)
            continue
        outcomes[planned.name] = run_stage(
            stage,
            folder(root, planned.name, planned.identity),
            mesh=mesh,
            rules=rules,
            writers=writers,
            quiet=quiet,
        )
        _warn_of_a_weak_teacher(planned, outcomes)
    return outcomes


def shapes(plan: Plan) -> dict[str, Any]:
    """The shapes of every stage's result, from a trace of its step.

    Raises:
        ValueError: naming the stage, for taps, features and results that do not fit.
    """
    results: dict[str, Any] = {}
    for planned in plan.stages:
        if planned.settings["work"]:
            results[planned.name] = None  # what it chooses is known when it is done
            continue
        try:
            stage = stage_of(plan, planned, {name: results[name] for name in planned.needs})
            state, _ = _traced(stage)
            results[planned.name] = jax.eval_shape(stage.distiller.result, state)
        except ValueError as fault:
            raise ValueError(f"stage {planned.name!r}: {fault}") from fault
    return results


def _traced(stage: Stage) -> tuple[Any, Any]:
    """The shapes of a stage's state and of its batches, once a step was traced on them."""
    batch = abstract(first_batch(stage))
    started = {**stage.frozen, **stage.initial}
    state = check(stage.distiller, jax.random.key(0), started, dict(stage.frozen), batch)
    return state, batch


def compiled_step(plan: Plan, name: str, results: Mapping[str, Any] | None = None) -> Any:
    """One step of a stage, compiled for a device that holds all of it.

    Args:
        plan: the recipe.
        name: the stage.
        results: the shapes of all results, see :func:`shapes`, where they are known already.
    """
    results = shapes(plan) if results is None else results
    planned = plan.stage(name)
    stage = stage_of(plan, planned, {other: results[other] for other in planned.needs})
    state, batch = _traced(stage)
    return jax.jit(stage.distiller.step).lower(state, dict(stage.frozen), batch).compile()


def step_flops(plan: Plan, name: str) -> float:
    """The operations of one compiled step of a stage, as XLA counts them (loops once)."""
    cost: Any = compiled_step(plan, name).cost_analysis()
    return float(cost["flops"])


def restore(workdir: Path | str, stage: str | None = None) -> Restored:
    """A student that the command left in its working directory.

    Args:
        workdir: what ``--workdir`` was.
        stage: which stage's, the last one by default.

    Returns:
        The net with its ``params`` and ``state``, so that ``net.apply(params, state, images).out``
        is its answer, and the config.

    Raises:
        ValueError: if there is no such run or stage, or the stage is not done.
    """
    root = Path(workdir)
    if not (root / "config.json").exists() or not (root / "data.json").exists():
        raise ValueError(
            f"{root} is no working directory of a run: it has no config.json and data.json"
        )
    config = read_sealed(root / "config.json")
    info = read_sealed(root / "data.json")
    hashes = identities(config)
    stage = stage or list(hashes)[-1]
    if stage not in hashes:
        raise ValueError(unknown("stage", stage, hashes))
    settings = stage_settings(config)[stage]
    net = None if settings["work"] else _net_of(settings, info[stage])
    if net is None:
        raise ValueError(f"stage {stage!r} trains no net")
    where = settings["checkpoint"] or folder(root, stage, hashes[stage])
    params, state = _loaded(where)
    return Restored(net, params, state, config)


def _net_of(settings: Mapping[str, Any], info: Mapping[str, Any]) -> Net | None:
    """The student that a stage names, or the published one that takes its place; None for an
    algorithm that has no net."""
    if pretrained.is_published(settings["checkpoint"]):
        return from_linen(pretrained.module_of(settings["checkpoint"]))
    return registry.net(settings["student"], info) if settings["student"] else None


def _loaded(where: Path | str) -> Any:
    if pretrained.is_published(where):
        found = pretrained.load(where)
        return found.params, found.state
    return load_result(where)


def _worked(plan: Plan, planned: Planned, results: Mapping[str, Any], root: Path | str) -> Outcome:
    seed = plan.config["seed"]
    return run_work(
        work_of(planned, plan.nets, seed),
        results,
        planned.data,
        seed=seed + planned.settings["seed"],
        directory=folder(root, planned.name, planned.identity),
        identity={"identity": planned.identity},
        evaluations=measured_of(plan, planned).evaluations,
    )


def _given(planned: Planned, stage: Stage) -> Outcome:
    """The result of a stage that somebody has run already, checked against the net of this one."""
    result = _loaded(planned.settings["checkpoint"])
    own = jax.eval_shape(stage.distiller.result, _traced(stage)[0])
    refuse_other_arrays(planned.settings["checkpoint"], result, own)
    return Outcome(tuple(result), [], {}, 0.0)


def _warn_of_a_weak_teacher(planned: Planned, outcomes: Mapping[str, Outcome]) -> None:
    for name in target_stages(planned.settings["targets"]):
        for metric, value in outcomes[planned.name].values.items():
            teacher = outcomes[planned.name].values.get(f"{name}:{metric}")
            if teacher is None:  # a cached one: what its own stage has measured
                teacher = outcomes[name].values.get(metric)
            if metric.endswith("accuracy") and teacher is not None and teacher < value:
                logging.warning(
                    "%s: the teacher %r is worse than its student: %s %.4f against %.4f",
                    planned.name, name, metric, teacher, value,
                )  # fmt: skip


def _with_needs(plan: Plan, names: Sequence[str]) -> set[str]:
    found = set(names)
    for planned in reversed(plan.stages):
        if planned.name in found:
            found |= set(planned.needs)
    return found


def _note(path: Path, known: Mapping[str, Any]) -> None:
    """Writes what is known unless it stands there: what is done may lie on a read-only disk."""
    with contextlib.suppress(Damaged):
        if read_sealed(path) == json.loads(json.dumps(known)):
            return
    write_sealed(path, known)


def _known(planned: Planned) -> dict[str, Any]:
    """What a net must know of its data."""
    known = ("classes", "image_shape", "vocabulary", "length")
    return {key: planned.info[key] for key in known if key in planned.info}
