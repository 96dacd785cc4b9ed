"""A planned stage as the one that the loop runs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax

from jaxdistill import registry
from jaxdistill.config import frozen_stages, target_stages, teachers
from jaxdistill.data.records import Source
from jaxdistill.data.stream import Stream, evaluation_batches, stream
from jaxdistill.distiller import Distiller, Work, model_to_model
from jaxdistill.net import Net
from jaxdistill.objective import combine
from jaxdistill.recipe import initial as start
from jaxdistill.recipe import stage_cache
from jaxdistill.recipe.planned import Plan, Planned
from jaxdistill.store import Codec, Store
from jaxdistill.training.loop import Evaluation, Evaluator, Stage


def stage_of(
    plan: Plan, planned: Planned, results: Mapping[str, Any], store: Store | None = None
) -> Stage:
    """The stage that the loop runs, once the results that it builds on are there.

    Args:
        plan: the recipe.
        planned: the stage.
        results: of the stages it needs; shapes are enough to trace it.
        store: what its teachers gave, where they are cached; without it zeros stand for that.
    """
    settings, seed = planned.settings, plan.config["seed"]
    # What is drawn of the data is the run's; the start and the order are the stage's own.
    own_seed = seed + settings["seed"]
    codecs: Mapping[str, Codec] | None = None
    source: Source | None = None
    if "train" in planned.data:
        source = registry.records(planned.data["train"], settings["records"], seed)
    if stage_cache.is_cached(planned):
        source, codecs = stage_cache.attached(plan, planned, results, store)
    initial = {}
    if settings["initial"]:
        initial = {"initial": start.variables(plan, planned, results)}
    measured = measured_of(plan, planned)
    between = None
    if settings["between"]:
        context = context_of(planned, plan.nets, seed)
        between = registry.between(settings["between"], context)
    context = context_of(planned, plan.nets, own_seed, codecs)
    # What was planned is traced already.
    known = plan.traced.get(planned.name) if codecs is None and not settings["weights"] else None
    factors = factors_of(planned, results)
    distiller = known.stage.distiller if known else distiller_of(planned, context, factors)
    data = None
    if distiller.takes and source is not None:
        data = _data(planned, source, own_seed, planned_shares=bool(between))
    return Stage(
        name=planned.name,
        distiller=distiller,
        data=data,
        steps=settings["steps"],
        frozen=_frozen(planned, results),
        initial=initial,
        seed=own_seed,
        before=measured.before,
        evaluations=measured.evaluations,
        between=between,
        log_every=settings["log_every"],
        checkpoint_every=settings["checkpoint_every"],
        checkpoint_minutes=settings["checkpoint_minutes"],
        keep=settings["keep"],
        best=tuple(settings["best"]) if settings["best"] else None,
        returns=settings["select"],
        spans=settings["spans"] or {},
        identity={
            "identity": planned.identity,
            **({"cache": store.manifest["identity"]} if store is not None else {}),
        },
    )


def _frozen(planned: Planned, results: Mapping[str, Any]) -> dict[str, Any]:
    settings = planned.settings
    held = (*target_stages(settings["targets"]), *frozen_stages(settings), *planned.shares)
    if stage_cache.is_cached(planned):
        # What is read from disk is there only for what measures against it.
        others = (*settings["evaluate"].values(), settings["between"] or {})
        held = tuple(name for name in held if any(spec.get("against") == name for spec in others))
    return {**{name: results[name] for name in held}, **planned.whole_sets}


def _data(planned: Planned, source: Source, seed: int, *, planned_shares: bool) -> Any:
    shard = (jax.process_index(), jax.process_count())

    def data(plan: Any) -> Stream:
        size = min(planned.settings["batch_size"], len(source))
        weights = plan["weights"] if plan else None
        order = planned.settings["order"]
        return stream(source, size, seed=seed, weights=weights, shard=shard, order=order)

    return data if planned_shares else data(None)


def context_of(
    planned: Planned,
    nets: Mapping[str, Net],
    seed: int,
    codecs: Mapping[str, Codec] | None = None,
) -> registry.Context:
    """What the runner offers to the parts of a stage."""
    settings, info = planned.settings, planned.info
    steps, optimizer = settings["steps"], settings["optimizer"]
    return registry.Context(
        student_net=planned.student,
        student=settings["student"] or {},
        nets=nets,
        initial="initial" if settings["initial"] else None,
        transformation=registry.transformation(optimizer, steps) if optimizer else None,
        optimizer=optimizer,
        steps=steps,
        seed=seed,
        prepare=registry.view(settings["view"], info),
        sets=planned.data,
        info=info,
        codecs=codecs,
        paths=registry.target_paths(settings["objective"]),
    )


def distiller_of(
    planned: Planned, context: registry.Context, factors: Mapping[str, float] | None = None
) -> Distiller:
    """The algorithm of a stage; ``factors`` multiply the weights of the objective's entries."""
    settings = planned.settings
    if settings["distiller"]:
        return registry.distiller(settings["distiller"], context)
    if settings["checkpoint"] and not settings["objective"]:
        return _given(context)
    entries, factors = settings["objective"], factors or {}
    terms = combine(
        {
            name: registry.match(
                name, entry, context.steps, scale=factors.get(name, 1.0), sets=context.sets
            )
            for name, entry in entries.items()
        }
    )
    return model_to_model(
        context.net,
        registry.target(settings["targets"], context),
        terms,
        context.tx,
        inputs="student",
        taps=registry.student_taps(entries),
        prepare=context.prepare,
        ema=registry.schedule(settings["ema"], context.steps),
        accumulate=settings["accumulate"],
        initial=context.initial,
        returns=settings["returns"],
    )


def _given(context: registry.Context) -> Distiller:
    """A net that is given, and learns nothing."""
    still = optax.set_to_zero()
    targets = registry.target(None, context)
    return model_to_model(
        context.net, targets, combine({}), still, inputs="student", prepare=context.prepare
    )


def work_of(planned: Planned, nets: Mapping[str, Net], seed: int) -> Work:
    """The work of a stage that trains nothing."""
    context = registry.Context(nets=nets, seed=seed, sets=planned.data, info=planned.info)
    return registry.work(planned.settings["work"], context)


def factors_of(planned: Planned, results: Mapping[str, Any]) -> dict[str, float]:
    """What multiplies the weights of the objective's entries, where an earlier stage has chosen it;
    nothing does while a recipe is planned."""
    chosen = planned.settings["weights"]
    found = results.get(chosen) if chosen else None
    if found is None:
        return {}
    return dict(found["weights"])


class Measured(NamedTuple):
    """What is measured of a stage, and of its teachers before it."""

    evaluations: tuple[Evaluation, ...]
    before: tuple[tuple[str, Evaluation], ...]


def measured_of(plan: Plan, planned: Planned) -> Measured:
    """The evaluations of a stage, and those of its teachers on the validation set."""
    settings, sets, seed = planned.settings, planned.data, plan.config["seed"]
    shard = (jax.process_index(), jax.process_count())
    # A cached teacher is not there to be measured: its own stage has done that.
    compared = () if stage_cache.is_cached(planned) else teachers(settings["targets"])
    evaluations: list[Evaluation] = []
    before: list[tuple[str, Evaluation]] = []
    for label, spec in settings["evaluate"].items():
        evaluator = evaluator_of(label, spec, planned, seed, plan.nets, compared)
        said = registry.evaluated(label, spec, sets)
        for part in said.sets:
            batches = evaluation_batches(sets[part], said.batch_size, shard=shard)
            every = said.every if part != "test" else 0
            measure = _of_all_weights(planned, evaluator)
            evaluations.append(Evaluation(part, measure, batches, every, said.mean))
            if part != "validation" or not said.teacher:
                continue
            for name in compared:
                own = dataclasses.replace(planned, name=name, net=plan.nets[name], needs=())
                measure = evaluator_of(label, spec, own, seed, plan.nets)
                before.append((name, Evaluation(part, measure, batches)))
    return Measured(tuple(evaluations), tuple(before))


def _of_all_weights(planned: Planned, evaluator: Evaluator) -> Evaluator:
    """The evaluator of a student that shares weights, on these and its own."""
    if not planned.shares:
        return evaluator

    @functools.wraps(evaluator)
    def measure(result: Any, frozen: Mapping[str, Any], data: Any) -> Mapping[str, float]:
        return evaluator(planned.handed_on(result, frozen), frozen, data)

    return measure


def evaluator_of(
    label: str,
    spec: Mapping[str, Any],
    planned: Planned,
    seed: int,
    nets: Mapping[str, Net],
    teachers: tuple[str, ...] = (),
) -> Evaluator:
    """The evaluator of a stage; where it has just one teacher, one that compares with it."""
    name = teachers[0] if len(teachers) == 1 else None
    context = registry.Context(
        student_net=planned.net,
        nets=nets,
        sets=planned.data,
        info=planned.info,
        seed=seed,
        teacher=nets[name] if name else None,
        teacher_name=name or "",
    )
    try:
        return registry.evaluator(label, spec, context)
    except ValueError as fault:
        if planned.net is not None:
            raise
        raise ValueError(f"evaluation {label!r}: {fault}") from fault
