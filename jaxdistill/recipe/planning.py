"""Planning a recipe: all names looked up, all stages traced on shapes alone."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from jaxdistill._errors import blamed
from jaxdistill.config import choice_stages, data_stage
from jaxdistill.evaluation.batches import trace
from jaxdistill.progress import shown
from jaxdistill.recipe.planned import Plan, Planned, Traced
from jaxdistill.recipe.resolving import resolve
from jaxdistill.recipe.stages import stage_of
from jaxdistill.training.checks import of_all_processes
from jaxdistill.training.loop import Stage, abstract, check, first_batch
from jaxdistill.training.sharding import (
    Rules,
    batch_sharding,
    make_mesh,
    memory_of_a_device,
    shapes_of_batch,
    shapes_on,
)


def plan(config: Mapping[str, Any]) -> Plan:
    """Resolves every name of a config, and traces every stage on shapes alone.

    A misspelt tap of the last stage is reported before the first one trains.

    Raises:
        ValueError: listing every unknown key or name, with the nearest valid one, and every value
            outside its domain; for taps, features and results that do not fit, naming the stage;
            for a mesh that the devices do not allow.
        FileNotFoundError: for a data set that is not there, with how to prepare it.
    """
    found = resolve(config)
    make_mesh(found.config.get("mesh"))
    return dataclasses.replace(found, traced=_traced(found))


def refuse_too_large(plan: Plan) -> None:
    """Refuses a recipe with a stage that no device here can hold its slice of.

    A recipe for other machines can still be planned.

    Raises:
        ValueError: naming the stage, what it holds and what there is.
    """
    mesh = make_mesh(plan.config.get("mesh"))
    slices, there = mesh.shape["fsdp"] * mesh.shape["model"], memory_of_a_device()
    for name, traced in plan.traced.items():
        held = _bytes((traced.state, dict(traced.stage.frozen)))
        if held / slices > there:
            raise ValueError(
                f"stage {name!r} holds {held / 1e9:,.0f} GB in parameters, optimizer and teachers, "
                f"cut into {slices}; a device here has {there / 1e9:,.1f} GB: take a smaller net, "
                "or set mesh.fsdp where there are more devices"
            )


def shapes(plan: Plan) -> dict[str, Any]:
    """The shapes of every stage's result, from a trace of its step; None for what is known only
    when something has run: a work, what is trained on records that are not written yet, and what
    reads such results.

    Raises:
        ValueError: naming the stage, for taps, features and results that do not fit.
    """
    traced = plan.traced or _traced(plan)
    return {p.name: traced[p.name].result if p.name in traced else None for p in plan.stages}


def _traced(plan: Plan) -> dict[str, Traced]:
    """The stages whose shapes are known before anything has run, by name."""
    found: dict[str, Traced] = {}
    for planned in shown(plan.stages, "plan", "stages"):
        if not _traceable(planned, found):
            continue
        needed = {name: found[name].result if name in found else None for name in planned.needs}
        try:
            with blamed("its parts do not fit"):
                stage = stage_of(plan, planned, needed)
                state, batch = checked(plan, stage)
                own = jax.eval_shape(stage.distiller.result, state)
                _trace_measured(stage, own, **placement(plan))
                result = planned.handed_on(own, needed)
                found[planned.name] = Traced(stage, state, batch, result)
        except ValueError as fault:
            raise ValueError(f"stage {planned.name!r}: {fault}") from fault
    return found


def _trace_measured(stage: Stage, result: Any, mesh: Mesh, rules: Rules) -> None:
    """Traces what is measured of a stage and of its teachers, each evaluator once."""
    # Shapes where the arrays will lie, so that nothing is traced anew when it runs.
    result, frozen = shapes_on(mesh, result, rules), shapes_on(mesh, dict(stage.frozen), rules)
    own = {e.evaluator: (e, result) for e in stage.evaluations}
    theirs = {e.evaluator: (e, frozen[name]) for name, e in stage.before if name in frozen}
    batches: dict[str, list[Any]] = {}
    for evaluation, of in (own | theirs).values():
        if evaluation.set not in batches:
            batches[evaluation.set] = list(itertools.islice(evaluation.data, 1))
        trace(evaluation.evaluator, of, frozen, batches[evaluation.set])


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _traceable(planned: Planned, traced: Mapping[str, Traced]) -> bool:
    """Whether the shapes of all that a stage holds are known."""
    settings = planned.settings
    # What an earlier stage chooses has a value in the config as long as it has not.
    chosen = (*choice_stages(settings), settings["weights"])
    held = (name for name in planned.needs if name not in chosen and name != data_stage(settings))
    unwritten = data_stage(settings) in planned.awaits
    return not (settings["work"] or unwritten or any(name not in traced for name in held))


def checked(plan: Plan, stage: Stage) -> tuple[Any, Any]:
    """The shapes of a stage's state and of its batches, once a step was traced on them."""
    how, distiller = placement(plan), stage.distiller
    on_batch = batch_sharding(how["mesh"], distiller.takes)
    batch = of_all_processes(abstract(first_batch(stage)), on_batch)
    started = {**stage.frozen, **stage.initial}
    state = check(distiller, jax.random.key(0), started, dict(stage.frozen), batch, **how)
    return state, batch


# A plan wants to know what XLA's passes make of a step, not the machine code: a third of the time.
_UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def compiled_step(plan: Plan, name: str) -> Any:
    """One step of a stage, compiled for a device that holds all of it, to be looked at, not run.

    Raises:
        ValueError: for a stage that can be traced only when earlier ones have run.
    """
    found = plan.traced or _traced(plan)
    if name not in found:
        raise ValueError(
            f"the step of stage {name!r} is known when {plan.stage(name).needs} have run"
        )
    stage, state, batch, _ = found[name]
    frozen, context = dict(stage.frozen), contextlib.nullcontext()
    mesh, rules = placement(plan).values()
    if mesh.size == 1:
        # It is the device that the step was traced for.
        state, frozen = shapes_on(mesh, state, rules), shapes_on(mesh, frozen, rules)
        batch = shapes_of_batch(batch, batch_sharding(mesh, stage.distiller.takes))
        context = jax.sharding.use_abstract_mesh(mesh.abstract_mesh)
    with context:
        lowered = jax.jit(stage.distiller.step).lower(state, frozen, batch)
    return lowered.compile(_UNOPTIMISED if jax.default_backend() == "cpu" else None)


def step_flops(plan: Plan, name: str) -> float:
    """The operations of one compiled step of a stage, as XLA counts them (loops once)."""
    cost: Any = compiled_step(plan, name).cost_analysis()
    return float(cost["flops"])


def placement(plan: Plan) -> dict[str, Any]:
    """Where stages run."""
    rules = tuple(plan.config.get("rules") or ())
    return {"mesh": make_mesh(plan.config.get("mesh")), "rules": rules}
