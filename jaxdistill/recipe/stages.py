"""A planned stage as the one that the loop runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from jaxdistill import registry
from jaxdistill.config import frozen_stages, target_stages
from jaxdistill.data.records import Source
from jaxdistill.data.stream import Stream, evaluation_batches, stream
from jaxdistill.distiller import Distiller, model_to_model
from jaxdistill.net import Net
from jaxdistill.objective import combine
from jaxdistill.recipe import caches, guidance, transfer
from jaxdistill.recipe import initial as start
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
    settings, sets, seed = planned.settings, planned.data, plan.config["seed"]
    # What is drawn of the data is the run's; the start and the order are the stage's own.
    own_seed = seed + settings["seed"]
    nets = {p.name: p.net for p in plan.stages}
    teachers = target_stages(settings["targets"])
    cached = caches.is_cached(planned)
    held = (*teachers, *frozen_stages(settings))
    if cached:
        # What is read from disk is there only for what measures against it.
        others = (*settings["evaluate"].values(), settings["between"] or {})
        held = tuple(name for name in held if any(spec.get("against") == name for spec in others))
    frozen = {**{name: results[name] for name in held}, **planned.whole_sets}
    shard = (jax.process_index(), jax.process_count())
    initial = {}
    if settings["initial"]:
        initial = {"initial": start.variables(plan, planned, results)}
    codecs: Mapping[str, Codec] | None = None
    source: Source = registry.records(sets["train"], settings["records"], seed)
    if cached:
        source, codecs = caches.attached(plan, planned, results, store)
    evaluations: list[Evaluation] = []
    before: list[tuple[str, Evaluation]] = []
    # A cached teacher is not there to be measured: its own stage has done that.
    compared = () if cached else teachers
    for label, spec in settings["evaluate"].items():
        evaluator = evaluator_of(label, spec, planned, seed, nets, compared)
        for part in spec.get("sets", ("validation",)):
            batches = evaluation_batches(
                sets[part], spec.get("batch_size", registry.BATCH), shard=shard
            )
            every = spec.get("every", 0) if part != "test" else 0
            evaluations.append(Evaluation(part, evaluator, batches, every))
            if part != "validation" or not spec.get("teacher", True):
                continue
            for name in compared:
                own = dataclasses.replace(planned, name=name, net=nets[name], needs=())
                before.append(
                    (name, Evaluation(part, evaluator_of(label, spec, own, seed, nets), batches))
                )
    weights: dict[str, float] = {}
    for name, estimate in (("sources", transfer.weights), ("guidance", guidance.weights)):
        factors, known = estimate(plan, planned, results)
        weights |= factors
        if known:
            evaluations.append(Evaluation(name, _known(known)))
    between = None
    if settings["between"]:
        between = registry.between(settings["between"], net=planned.net, nets=nets, sets=sets)

    def data(plan: Any) -> Stream:
        size = min(settings["batch_size"], len(source))
        weights = plan["weights"] if plan else None
        return stream(source, size, seed=own_seed, weights=weights, shard=shard)

    return Stage(
        name=planned.name,
        distiller=distiller_of(planned, nets, codecs, weights, own_seed),
        data=data if between else data(None),
        steps=settings["steps"],
        frozen=frozen,
        initial=initial,
        seed=own_seed,
        before=tuple(before),
        evaluations=tuple(evaluations),
        between=between,
        log_every=settings["log_every"],
        checkpoint_every=settings["checkpoint_every"],
        keep=settings["keep"],
        best=tuple(settings["best"]) if settings["best"] else None,
        returns=settings["select"],
        identity={
            "identity": planned.identity,
            **({"cache": store.manifest["identity"]} if store is not None else {}),
        },
    )


def distiller_of(
    planned: Planned,
    nets: Mapping[str, Net],
    codecs: Mapping[str, Codec] | None = None,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Distiller:
    """The algorithm of a stage; ``weights`` multiply those of the objective's entries."""
    settings = planned.settings
    entries = settings["objective"]
    steps = settings["steps"]
    info = planned.data["train"].info
    prepare = registry.view(settings["view"], info)
    if settings["distiller"]:
        optimizer = settings["optimizer"]
        return registry.distiller(
            settings["distiller"],
            net=planned.net,
            codecs=codecs,
            student=settings["student"],
            nets=nets,
            tx=registry.transformation(optimizer, steps) if optimizer else None,
            prepare=prepare,
            steps=steps,
            info=info,
            seed=seed,
            initial="initial" if settings["initial"] else None,
            optimizer=optimizer,
            transformation=registry.transformation,
        )
    terms = combine(
        {
            name: registry.match(name, entry, steps, scale=(weights or {}).get(name, 1.0))
            for name, entry in entries.items()
        }
    )
    goal = registry.target(
        settings["targets"], registry.target_paths(entries), nets, planned.net, codecs
    )
    tx = registry.transformation(settings["optimizer"], steps)
    return model_to_model(
        planned.net,
        goal,
        terms,
        tx,
        inputs="student",
        taps=registry.student_taps(entries),
        prepare=prepare,
        ema=registry.schedule(settings["ema"], steps),
        accumulate=settings["accumulate"],
        initial="initial" if settings["initial"] else None,
        returns=settings["returns"],
    )


def evaluator_of(
    label: str,
    spec: Mapping[str, Any],
    planned: Planned,
    seed: int,
    nets: Mapping[str, Net] | None = None,
    teachers: tuple[str, ...] = (),
):
    """The evaluator of a stage; with the nets of all, one that compares it with its one teacher."""
    name = teachers[0] if len(teachers) == 1 and spec.get("teacher", True) else None
    return registry.evaluator(
        label,
        spec,
        net=planned.net,
        teacher=nets[name] if nets and name else None,
        teacher_name=name or "",
        sets=planned.data,
        seed=seed,
        nets=nets,
    )


def _known(values: Mapping[str, float]) -> Evaluator:
    """An evaluator that only reports what is known already."""
    return lambda *_: values
