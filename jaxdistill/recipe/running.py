"""Running a recipe, and getting a result back."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill import registry
from jaxdistill._errors import unknown
from jaxdistill._files import Damaged, read_sealed, write_sealed
from jaxdistill.config import choice_stages, stage_settings, teachers, with_choices
from jaxdistill.data.checks import warn_of_duplicates
from jaxdistill.distiller import on_base, with_base
from jaxdistill.identities import identities
from jaxdistill.models import pretrained
from jaxdistill.progress import silence
from jaxdistill.recipe import given, stage_cache
from jaxdistill.recipe.planned import Plan, Planned, Restored, folder
from jaxdistill.recipe.planning import checked, placement, refuse_too_large
from jaxdistill.recipe.resolving import module_of, net_of, sees, settled
from jaxdistill.recipe.stages import measured_of, stage_of, work_of
from jaxdistill.training.checkpoint import load_record, refuse_other_arrays
from jaxdistill.training.fit import load_result
from jaxdistill.training.loop import Outcome, Stage, run_stage
from jaxdistill.training.metrics import Writer
from jaxdistill.training.processes import is_first
from jaxdistill.training.sharding import shardings
from jaxdistill.training.tracking import Tracker
from jaxdistill.training.works import refuse_other_kind, run_work


def run(
    plan: Plan,
    root: Path | str,
    *,
    stages: Sequence[str] | None = None,
    trackers: Sequence[Tracker] = (),
    quiet: bool = False,
) -> dict[str, Outcome]:
    """Runs the stages of a plan in order, each in ``root/stages/<name>-<identity>``.

    Args:
        plan: the recipe.
        root: the working directory.
        stages: which stages to run, each with those it builds on; all by default.
        trackers: where its lines are shown.
        quiet: no progress.

    Besides them ``root/data.json`` says what nets must know of the data, so that a result can be
    restored without it.

    Returns:
        What every stage left, by name.

    Raises:
        ValueError: for a stage that is too large for the devices.
    """
    refuse_too_large(plan)
    Path(root).mkdir(parents=True, exist_ok=True)
    if is_first():
        _note(Path(root) / "data.json", {p.name: _known(p) for p in plan.stages})
    outcomes: dict[str, Outcome] = {}
    names = [planned.name for planned in plan.stages]
    before = _steps_before(plan)
    wanted = _with_needs(plan, stages) if stages is not None else set(names)
    with silence(quiet):
        for sets in plan.read.values() if is_first() else ():
            warn_of_duplicates(sets)
        for name in (name for name in names if name in wanted):
            results = {other: outcome.result for other, outcome in outcomes.items()}
            plan = settled(plan, results)
            planned = plan.stage(name)
            where = folder(root, name, planned.identity)
            writers = [t.stage(name, before=before[name], folder=where) for t in trackers]
            own = {other: results[other] for other in planned.needs}
            outcomes[name] = _outcome(plan, planned, own, root, writers)
            for tracker, writer in zip(trackers, writers, strict=True):
                tracker.end(writer, outcomes[name].metrics)
            _warn_of_a_weak_teacher(planned, outcomes)
    return outcomes


def _steps_before(plan: Plan) -> dict[str, int]:
    """For every stage the steps of those before it, step 0 among them."""
    lengths = [planned.settings["steps"] + 1 for planned in plan.stages]
    starts = itertools.accumulate(lengths, initial=0)
    return {planned.name: start for planned, start in zip(plan.stages, starts, strict=False)}


def _outcome(
    plan: Plan,
    planned: Planned,
    results: Mapping[str, Any],
    root: Path | str,
    writers: Sequence[Writer],
) -> Outcome:
    """What one stage leaves, given the results that it builds on."""
    if planned.settings["work"]:
        return _worked(plan, planned, results, root)
    how = placement(plan)
    cached = stage_cache.is_cached(planned)
    store = stage_cache.write_cache(plan, planned, results, root, **how) if cached else None
    stage = stage_of(plan, planned, results, store)
    if planned.settings["checkpoint"]:
        outcome = _given(plan, planned, stage)
    else:
        where = folder(root, planned.name, planned.identity)
        outcome = run_stage(stage, where, writers=writers, **how)
    refuse_other_kind(planned.kind, outcome.result)
    return dataclasses.replace(outcome, result=planned.handed_on(outcome.result, results))


def finished(plan: Plan, root: Path | str, stages: Sequence[str]) -> dict[str, Any]:
    """The results of stages that are done, and of those that they build on, by name.

    Raises:
        ValueError: for one that is not.
    """
    for name in _with_needs(plan, stages):
        planned = plan.stage(name)
        where = folder(root, name, planned.identity)
        if not planned.settings["checkpoint"] and not (where / "result").is_dir():
            raise ValueError(f"{where} holds no result: stage {name!r} is not done")
    outcomes = run(plan, root, stages=stages, quiet=True)
    return {name: outcome.result for name, outcome in outcomes.items()}


def restore(workdir: Path | str, stage: str | None = None) -> Restored:
    """A student that the command left in its working directory.

    Args:
        workdir: what ``--workdir`` was.
        stage: which stage's, the last one by default.

    Returns:
        The net with its ``params`` and ``state``, so that ``net.apply(params, state, images).out``
        is its output, the config, and the Linen module of the net where it has one.

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
    chosen = {
        other: load_record(folder(root, other, hashes[other]) / "result")["choice"]
        for other in choice_stages(settings)
    }
    settings = with_choices(settings, chosen)
    kind = info[stage].get("kind", "net")
    if kind != "net" or settings["work"] or not settings["student"]:
        raise ValueError(f"stage {stage!r} trains no net: what it leaves is {kind}")
    shares = registry.shared(settings["student"])
    base = {other: restore(workdir, other) for other in shares}
    nets = {name: own.net for name, own in base.items()}
    net: Any = net_of(settings, info[stage], nets)
    where = settings["checkpoint"] or folder(root, stage, hashes[stage])
    params, state = _loaded(where, info[stage])
    module = module_of(settings, info[stage])
    if shares:
        frozen = {name: (own.params, own.state) for name, own in base.items()}
        net = with_base(net, shares, nets)
        params, state = on_base((params, state), frozen, shares)
    return Restored(net, params, state, config, module)


def _loaded(where: Path | str, info: Mapping[str, Any], placed: Any = None) -> Any:
    """A result on disk, or published weights, for images of the size that the files beside them
    state: DINOv2's positions are of another one."""
    if not pretrained.is_published(where):
        return load_result(where)
    how: dict[str, Any] = {"sees": sees(info), "shardings": placed}
    seen = given.preprocessing_of(where) if how["sees"] == "image" else None
    if seen is not None:
        how |= {"image_size": seen.size, "allow": ("resized positions",)}
    found = pretrained.load(where, **how)
    return found.params, found.state


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


def _given(plan: Plan, planned: Planned, stage: Stage) -> Outcome:
    """The result of a stage that somebody has run already, checked against the net of this one.

    Published weights go straight to where they are to live, in the precision they came in.
    """
    where = planned.settings["checkpoint"]
    mesh, rules = placement(plan).values()
    result = _loaded(where, planned.info, lambda tree: shardings(mesh, tree, rules))
    own = jax.eval_shape(stage.distiller.result, checked(plan, stage)[0])
    alike = _any_precision if pretrained.is_published(where) else lambda tree: tree
    refuse_other_arrays(where, alike(result), alike(own))
    return Outcome(tuple(result), [], {}, 0.0)


def _any_precision(tree: Any) -> Any:
    """Shapes of arrays, floating ones all of one type."""

    def one(x: Any) -> jax.ShapeDtypeStruct:
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(x.shape, jnp.float32 if floating else x.dtype)

    return jax.tree.map(one, tree)


def _warn_of_a_weak_teacher(planned: Planned, outcomes: Mapping[str, Outcome]) -> None:
    for name in teachers(planned.settings["targets"]):
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
    """What a net must know of its data, and whether there is one."""
    known = ("classes", "image_shape", "vocabulary", "length")
    return {"kind": planned.kind, **{k: planned.info[k] for k in known if k in planned.info}}
