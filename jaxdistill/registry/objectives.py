"""What a stage minimises, and where what it learns from comes from."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax

from jaxdistill import adapt, connectors, critics, losses, models, objective, queues, targets
from jaxdistill._errors import unknown
from jaxdistill.net import Net
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import (
    Entry,
    call,
    checked,
    forwarding,
    less,
    named,
    partial,
)
from jaxdistill.settings import Earlier, Finite, NonNegative, Scheduled, keys

LOSSES: dict[str, Callable[..., jax.Array]] = {
    entry.loss.__name__: entry.loss for entry in losses.catalogue()
}
PROJECTORS: dict[str, Callable[..., Net]] = {
    "linear": adapt.linear,
    "width": adapt.width,
    "mlp": adapt.mlp,
    "convolution": adapt.convolution,
    "regrid": adapt.regrid,
    "resize": adapt.resize,
    "translator": connectors.translator,
    "stage_head": models.stage_head,
}


def _owning(function: Callable[..., objective.Objective], weight: float = 1.0) -> Entry:
    """An objective with parts of its own as an entry; a loss of its name is meant no longer."""

    @forwarding(function, "name", "weight")
    def entry(
        context: Context, *, weight: Scheduled[Finite] = weight, **rest: Any
    ) -> objective.Objective:
        scaled = _scaled(weight, context.scale)
        return function(name=context.term, weight=scaled, **rest)

    return entry


@forwarding(connectors.contrastive, "name", "weight")
def _contrastive(
    context: Context, *, weight: Scheduled[Finite] = 1.0, **rest: Any
) -> objective.Objective:
    train = context.sets.get("train")
    records = None if train is None else len(train)
    scaled = _scaled(weight, context.scale)
    return connectors.contrastive(records, name=context.term, weight=scaled, **rest)


@forwarding(queues.similarity_queue, "name", "weight", "projector")
def _similarity_queue(
    context: Context,
    *,
    weight: Scheduled[Finite] = 1.0,
    projector: str | Mapping[str, Any] | None = None,
    **rest: Any,
) -> objective.Objective:
    own = {"weight": _scaled(weight, context.scale), "projector": _projector(projector)}
    return queues.similarity_queue(name=context.term, **own, **rest)


def _projector(said: str | Mapping[str, Any] | None) -> Callable[..., Net] | None:
    """What builds the net between two arrays, or None."""
    if not said:
        return None
    spec = {"name": said} if isinstance(said, str) else said
    return partial("projector", PROJECTORS, spec)


CRITICS: dict[str, Entry] = {
    "cooperative_discriminator": _owning(critics.cooperative_discriminator),
    "crd": _contrastive,
    "fsp": _owning(connectors.flow),
    "knowledge_review": _owning(connectors.knowledge_review),
    "overhaul": _owning(connectors.overhauled, 1e-3),
    "pad": _owning(connectors.prime_aware),
    "similarity_queue": _similarity_queue,
    "simple_recipe": _owning(connectors.simple_recipe),
    "vid": _owning(connectors.variational),
}
"""Objectives that own nets, variances or banks; those of a loss's name stand for it, which needs
them."""


def _matched(
    context: Context,
    *,
    student: str = "out",
    target: str = "out",
    weight: Scheduled[Finite] = 1.0,
    where: str | None = None,
    arguments: Mapping[str, str] | None = None,
    projector: str | Mapping[str, Any] | None = None,
    kept: str | None = None,
) -> dict[str, Any]:
    """What every entry of an objective may say besides the loss's own keywords."""
    found = {"student": student, "target": target, "weight": weight, "where": where, "kept": kept}
    return {**found, "arguments": dict(arguments or {}), "projector": _projector(projector)}


def match(
    name: str,
    part: Mapping[str, Any],
    steps: int,
    *,
    scale: float = 1.0,
    sets: Mapping[str, Any] | None = None,
) -> objective.Objective:
    """One entry of ``objective``: a loss between an array of the student and one of its targets,
    its weight times ``scale``; ``sets`` are those of the stage's data.
    """
    which = named(f"objective {name!r}", part, "loss")
    context = Context(steps=steps, term=name, scale=scale, sets=sets or {})
    if which in CRITICS:
        return call("loss", CRITICS, part, context, "loss")
    if which not in LOSSES:
        raise ValueError(unknown("loss", which, [*LOSSES, *CRITICS]))
    loss = LOSSES[which]
    shared = checked(f"loss {which!r}", _joint(loss), less(part, "loss"), context)
    matched = {key: shared.pop(key) for key in keys(_matched) if key in shared}
    matched = _matched(context, **matched)
    parameters = list(inspect.signature(loss).parameters)
    if _of_one(loss):
        matched["target"] = None
    if "labels" in parameters and parameters.index("labels") > 1:
        matched["arguments"].setdefault("labels", "batch/label")
    matched["weight"] = _scaled(matched["weight"], scale)
    return objective.match(loss, name=name, **matched, **shared)


@functools.cache
def _joint(loss: Callable[..., Any]) -> Entry:
    """An entry with the keys of all losses and those of this one."""

    @forwarding(loss, "where", "labels")
    @forwarding(_matched)
    def entry(context: Context, **rest: Any) -> None: ...

    return entry


def _of_one(loss: Callable[..., Any] | None) -> bool:
    """Whether a loss is one of the student's array alone."""
    if loss is None:
        return False
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return sum(p.kind is positional for p in inspect.signature(loss).parameters.values()) == 1


def student_taps(entries: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The taps of the student that an objective reads."""
    paths: list[str] = []
    for entry in entries.values():
        paths += [*_said(entry, "student"), *(entry.get("arguments") or {}).values()]
        paths += [entry["kept"]] if entry.get("kept") else []
    return objective.taps_of(*paths)


def target_paths(entries: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of targets that an objective reads."""
    paths: list[Any] = []
    for entry in entries.values():
        paths += [] if _of_one(LOSSES.get(str(entry.get("loss")))) else _said(entry, "target")
        paths += [f"params/{n}/{p}" for n in entry.get("norms") or () for p in ("scale", "bias")]
        arguments = map(str, (entry.get("arguments") or {}).values())
        paths += [path.removeprefix("target/") for path in arguments if path.startswith("target/")]
    # Those that are no strings are told of where their entry is made.
    named = [path for path in paths if isinstance(path, str)]
    return tuple(path for path in dict.fromkeys(named) if path and not path.startswith("batch/"))


def _said(entry: Mapping[str, Any], side: str) -> list[Any]:
    """The paths of one side of an entry, one or several: those of an objective with parts of its
    own by its own default."""
    given = entry.get(side)
    if given is None:
        own = CRITICS.get(str(entry.get("loss")))
        parameter = keys(own).get(side) if own is not None else None
        known = parameter is not None and parameter.default is not parameter.empty
        given = parameter.default if known and parameter is not None else "out"
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _scaled(weight: Any, scale: float) -> Any:
    if not callable(weight):
        return scale * weight
    given: Any = weight
    return lambda step: scale * given(step)


Mode = Literal["eval", "train"]


def _live(context: Context, *, stage: Earlier, mode: Mode = "eval") -> Any:
    net = context.net_of(stage)
    if context.codecs is not None:
        return targets.cached(context.codecs, stage, _read(context.paths))
    taps = objective.taps_of(*context.paths)
    own = {"taps": taps, "params": _parameters(context.paths), "mode": mode}
    return targets.live(net, stage, inputs="teacher", **own)


def _parameters(paths: Sequence[str]) -> tuple[str, ...]:
    """Those of some names of targets that are parameters of a teacher."""
    return tuple(p.removeprefix("params/") for p in paths if p.startswith("params/"))


def _own(source: str) -> Entry:
    def entry(context: Context, *, mode: Mode = "eval") -> Any:
        taps = objective.taps_of(*context.paths)
        return targets.live(context.net, source, inputs="teacher", taps=taps, mode=mode)

    return entry


def _labels(context: Context, *, key: str = "label") -> Any:
    return targets.labels(key)


def _members(context: Context, kind: str, members: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: target(
            member, dataclasses.replace(context, paths=_of_member(kind, name, context.paths))
        )
        for name, member in members.items()
    }


def _ensemble(
    context: Context,
    *,
    members: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, NonNegative] | str | None = None,
    average: Literal["probabilities", "logits"] = "probabilities",
) -> Any:
    made = _members(context, "ensemble", members)
    return targets.ensemble(made, weights=weights, average=average)


def _merge(context: Context, *, members: Mapping[str, Mapping[str, Any]]) -> Any:
    return targets.merge(_members(context, "merge", members))


TARGETS: dict[str, Entry] = {
    "live": _live,
    "ema": _own("ema"),
    "self": _own("self"),
    "ensemble": _ensemble,
    "merge": _merge,
    "labels": _labels,
}


def target(part: Mapping[str, Any] | None, context: Context) -> Callable[..., dict[str, Any]]:
    """What a stage learns from.

    Args:
        part: ``config.stages.<name>.targets``; None for a stage that learns from its batches
            alone.
        context: what the runner offers: ``paths``, the names of targets that the objective reads,
            see :func:`target_paths`; ``nets`` of earlier stages; ``net``, the stage's own;
            ``codecs`` of outputs that are read from disk.
    """
    if part is None:
        return lambda sources, batch, key, step: {}
    own = {"kind": "live", **less(part, "cached")}
    return call("kind of targets", TARGETS, own, context, "kind")


def stored(settings: Mapping[str, Any] | None, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What a cache must hold for some targets: for every earlier stage the outputs that are read.

    Raises:
        ValueError: for a teacher in training mode, whose outputs depend on the batch it is in.
    """
    kind = (settings or {}).get("kind", "live")
    if not settings or (kind != "live" and "members" not in settings):
        return {}
    if kind == "live":
        if (settings.get("mode") or "eval") != "eval":
            raise ValueError(
                f"teacher {settings['stage']!r} is in mode {settings['mode']!r}: what it gives "
                "depends on its batch, so it cannot be cached; only mode 'eval' can"
            )
        return {settings["stage"]: _read(paths)}
    found: dict[str, tuple[str, ...]] = {}
    for name, member in settings["members"].items():
        for stage, names in stored(member, _of_member(kind, name, paths)).items():
            found[stage] = tuple(dict.fromkeys((*found.get(stage, ()), *names)))
    return found


def _read(paths: Sequence[str]) -> tuple[str, ...]:
    """The outputs of a teacher that some paths name: its answer, and taps."""
    if own := _parameters(paths):
        raise ValueError(
            f"the objective reads {own[0]!r} of its teacher's parameters, which no cache "
            "of outputs holds: take 'cached' out"
        )
    answer = ("out",) if any(path.split("/")[0] == "out" for path in paths) else ()
    return (*answer, *objective.taps_of(*paths))


def _of_member(kind: str, member: str, paths: Sequence[str]) -> tuple[str, ...]:
    # An ensemble averages the answers of its members, whatever else is read of them.
    return (*(("out",) if kind == "ensemble" else ()), *_under(member, paths))


def _under(member: str, paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(path.removeprefix(f"{member}/") for path in paths if path.startswith(f"{member}/"))
