"""Recipes: an ordered list of stages from a config, each handing its result on to later ones.

A stage's folder is named by a hash of all that its result depends on (its own part of the config,
the data, the seed, and the stages it builds on), so that arms and runs that share a stage share its
result.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdistill import build
from jaxdistill._errors import unknown
from jaxdistill.config import (
    CONFIG_KEYS,
    identities,
    needs_of,
    stage_settings,
    target_stages,
)
from jaxdistill.data import split
from jaxdistill.data.stream import evaluation_batches, stream
from jaxdistill.distiller import model_to_model
from jaxdistill.net import Net
from jaxdistill.objective import combine
from jaxdistill.training.checkpoint import refuse_other_arrays, write_json
from jaxdistill.training.fit import load_result
from jaxdistill.training.loop import Evaluation, Outcome, Stage, abstract, check, run_stage
from jaxdistill.training.metrics import Writer
from jaxdistill.training.sharding import make_mesh


@dataclasses.dataclass(frozen=True)
class Planned:
    """A stage whose names are all resolved; nothing is computed yet.

    Attributes:
        name: its name in the config.
        settings: its part of the config, defaults filled in.
        net: the student.
        needs: the earlier stages whose results it reads.
        identity: hash of all that its result depends on.
    """

    name: str
    settings: dict[str, Any]
    net: Net
    needs: tuple[str, ...]
    identity: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """A whole recipe, checked.

    Attributes:
        config: the config as plain data.
        data: its train, validation and test sets.
        stages: in order.
    """

    config: dict[str, Any]
    data: split.Splits
    stages: tuple[Planned, ...]


class Restored(NamedTuple):
    """What :func:`restore` gives back."""

    net: Net
    params: Any
    state: Any
    config: dict[str, Any]


def plan(config: Mapping[str, Any]) -> Plan:
    """Resolves every name of a config, and traces every stage on shapes alone.

    A misspelt tap of the last stage is said before the first one trains.

    Raises:
        ValueError: for an unknown key or name anywhere, with the nearest valid one; for taps,
            features and results that do not fit, naming the stage; for a mesh that there is not.
        FileNotFoundError: for a data set that is not there, with how to prepare it.
    """
    config = copy.deepcopy(dict(config))
    for key in config:
        if key not in CONFIG_KEYS:
            raise ValueError(unknown("key of the config", key, CONFIG_KEYS))
    settings = stage_settings(config)
    hashes = identities(config)
    sets = build.data(config["data"])
    nets: dict[str, Net] = {}
    planned: list[Planned] = []
    for name in config["recipe"]:
        net = build.net(settings[name]["student"], sets["train"].info)
        stage = Planned(
            name, settings[name], net, needs_of(name, settings[name], list(nets)), hashes[name]
        )
        # Resolves every name of the stage, or says which is wrong.
        _distiller(stage, nets, sets)
        build.records(sets["train"], stage.settings["records"], config["seed"])
        given = stage.settings["checkpoint"]
        if given and not (Path(given) / "result").is_dir():
            raise ValueError(f"checkpoint {given!r} of stage {name!r} holds no result of a stage")
        for label, spec in stage.settings["evaluate"].items():
            _evaluator(label, spec, stage, sets, config["seed"])
        nets[name] = net
        planned.append(stage)
    make_mesh(config.get("mesh"))
    found = Plan(config, sets, tuple(planned))
    shapes(found)
    return found


def run(
    plan: Plan,
    root: Path | str,
    *,
    writers: Sequence[Writer] = (),
    quiet: bool = False,
) -> dict[str, Outcome]:
    """Runs the stages of a plan in order, each in ``root/stages/<name>-<identity>``.

    Besides them ``root/data.json`` says what nets must know of the data, so that a result can be
    restored without it.

    Returns:
        What every stage left, by name.
    """
    mesh = make_mesh(plan.config.get("mesh"))
    rules = tuple(plan.config.get("rules") or ())
    Path(root).mkdir(parents=True, exist_ok=True)
    info = plan.data["train"].info
    write_json(
        Path(root) / "data.json", {k: info[k] for k in ("classes", "image_shape") if k in info}
    )
    outcomes: dict[str, Outcome] = {}
    for planned in plan.stages:
        stage = stage_of(plan, planned, {name: outcomes[name].result for name in planned.needs})
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
        _warn_of_a_weak_teacher(planned, outcomes[planned.name])
    return outcomes


def shapes(plan: Plan) -> dict[str, Any]:
    """The shapes of every stage's result, from a trace of its step.

    Raises:
        ValueError: naming the stage, for taps, features and results that do not fit.
    """
    results: dict[str, Any] = {}
    for planned in plan.stages:
        try:
            stage = stage_of(plan, planned, {name: results[name] for name in planned.needs})
            state, _ = _traced(stage)
            results[planned.name] = jax.eval_shape(stage.distiller.result, state)
        except ValueError as fault:
            raise ValueError(f"stage {planned.name!r}: {fault}") from fault
    return results


def _traced(stage: Stage) -> tuple[Any, Any]:
    """The shapes of a stage's state and of its batches, once a step was traced on them."""
    batch = abstract(stage.data.at(0))
    started = {**stage.frozen, **stage.initial}
    state = check(stage.distiller, jax.random.key(0), started, dict(stage.frozen), batch)
    return state, batch


def step_flops(plan: Plan, name: str) -> float:
    """The operations of one compiled step of a stage, as XLA counts them (loops once)."""
    results = shapes(plan)
    planned = next(p for p in plan.stages if p.name == name)
    stage = stage_of(plan, planned, {other: results[other] for other in planned.needs})
    state, batch = _traced(stage)
    step = jax.jit(stage.distiller.step).lower(state, dict(stage.frozen), batch).compile()
    cost: Any = step.cost_analysis()
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
    config = json.loads((root / "config.json").read_text())
    info = json.loads((root / "data.json").read_text())
    hashes = identities(config)
    stage = stage or list(hashes)[-1]
    if stage not in hashes:
        raise ValueError(unknown("stage", stage, hashes))
    settings = stage_settings(config)[stage]
    where = settings["checkpoint"] or folder(root, stage, hashes[stage])
    params, state = load_result(where)
    return Restored(build.net(settings["student"], info), params, state, config)


def folder(root: Path | str, name: str, identity: str) -> Path:
    """Where a stage keeps what it writes."""
    return Path(root) / "stages" / f"{name}-{identity}"


def stage_of(plan: Plan, planned: Planned, results: Mapping[str, Any]) -> Stage:
    """The stage that the loop runs, once the results that it builds on are there."""
    settings, sets, seed = planned.settings, plan.data, plan.config["seed"]
    nets = {p.name: p.net for p in plan.stages}
    teachers = target_stages(settings["targets"])
    source = build.records(sets["train"], settings["records"], seed)
    shard = (jax.process_index(), jax.process_count())
    initial = {}
    if settings["initial"]:
        initial = {"initial": _parts(results[settings["initial"]["stage"]], settings["initial"])}
    evaluations: list[Evaluation] = []
    before: list[tuple[str, Evaluation]] = []
    for label, spec in settings["evaluate"].items():
        evaluator = _evaluator(label, spec, planned, sets, seed, nets)
        for part in spec.get("sets", ("validation",)):
            batches = evaluation_batches(
                sets[part], spec.get("batch_size", build.BATCH), shard=shard
            )
            every = spec.get("every", 0) if part != "test" else 0
            evaluations.append(Evaluation(part, evaluator, batches, every))
            if part != "validation" or not spec.get("teacher", True):
                continue
            for name in teachers:
                own = dataclasses.replace(planned, name=name, net=nets[name], needs=())
                before.append(
                    (name, Evaluation(part, _evaluator(label, spec, own, sets, seed), batches))
                )
    return Stage(
        name=planned.name,
        distiller=_distiller(planned, nets, sets),
        data=stream(source, min(settings["batch_size"], len(source)), seed=seed, shard=shard),
        steps=settings["steps"],
        frozen={name: results[name] for name in teachers},
        initial=initial,
        seed=seed,
        before=tuple(before),
        evaluations=tuple(evaluations),
        log_every=settings["log_every"],
        checkpoint_every=settings["checkpoint_every"],
        keep=settings["keep"],
        best=tuple(settings["best"]) if settings["best"] else None,
        returns=settings["select"],
        identity={"identity": planned.identity},
    )


def _distiller(planned: Planned, nets: Mapping[str, Net], sets: split.Splits):
    settings = planned.settings
    entries = settings["objective"]
    steps = settings["steps"]
    terms = combine({name: build.match(name, entry, steps) for name, entry in entries.items()})
    goal = build.target(settings["targets"], build.target_paths(entries), nets, planned.net)
    tx = build.transformation(settings["optimizer"], steps)
    return model_to_model(
        planned.net,
        goal,
        terms,
        tx,
        inputs="student",
        taps=build.student_taps(entries),
        prepare=build.view(settings["view"], sets["train"].info),
        ema=build.schedule(settings["ema"], steps),
        accumulate=settings["accumulate"],
        initial="initial" if settings["initial"] else None,
        returns=settings["returns"],
    )


def _evaluator(
    label: str,
    spec: Mapping[str, Any],
    planned: Planned,
    sets: split.Splits,
    seed: int,
    nets: Mapping[str, Net] | None = None,
):
    """The evaluator of a stage; with the nets of all, one that compares it with its teacher."""
    teachers = target_stages(planned.settings["targets"]) if nets else ()
    name = teachers[0] if len(teachers) == 1 and spec.get("teacher", True) else None
    return build.evaluator(
        label,
        spec,
        net=planned.net,
        teacher=nets[name] if nets and name else None,
        teacher_name=name or "",
        sets=sets,
        seed=seed,
    )


def _parts(result: Any, settings: Mapping[str, Any]) -> Any:
    """Those parts of an earlier result that a student starts from, under its own paths."""
    parts = settings.get("parts")
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


def _given(planned: Planned, stage: Stage) -> Outcome:
    """The result of a stage that somebody has run already, checked against the net of this one."""
    result = load_result(planned.settings["checkpoint"])
    own = jax.eval_shape(stage.distiller.result, _traced(stage)[0])
    refuse_other_arrays(planned.settings["checkpoint"], result, own)
    return Outcome(tuple(result), [], {}, 0.0)


def _warn_of_a_weak_teacher(planned: Planned, outcome: Outcome) -> None:
    for name in target_stages(planned.settings["targets"]):
        for metric, value in outcome.values.items():
            teacher = outcome.values.get(f"{name}:{metric}")
            if metric.endswith("accuracy") and teacher is not None and teacher < value:
                logging.warning(
                    "%s: the teacher %r is worse than its student: %s %.4f against %.4f",
                    planned.name, name, metric, teacher, value,
                )  # fmt: skip
