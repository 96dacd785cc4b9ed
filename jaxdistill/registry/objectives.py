"""What a stage minimises, and where what it learns from comes from."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax

from jaxdistill import adapt, critics, losses, objective, queues, targets
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
    "resize": adapt.resize,
}


@forwarding(critics.cooperative_discriminator, "name", "weight")
def _cooperative_discriminator(
    context: Context, *, weight: Scheduled[Finite] = 1.0, **rest: Any
) -> objective.Objective:
    weight = _scaled(weight, context.scale)
    return critics.cooperative_discriminator(name=context.term, weight=weight, **rest)


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


CRITICS: dict[str, Entry] = {
    "cooperative_discriminator": _cooperative_discriminator,
    "similarity_queue": _similarity_queue,
}


def _projector(said: str | Mapping[str, Any] | None) -> Callable[..., Net] | None:
    """What builds the net between two arrays, or None."""
    if not said:
        return None
    spec = {"name": said} if isinstance(said, str) else said
    return partial("projector", PROJECTORS, spec)


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
    name: str, part: Mapping[str, Any], steps: int, *, scale: float = 1.0
) -> objective.Objective:
    """One entry of ``objective``: a loss between an array of the student and one of its targets,
    its weight times ``scale``.
    """
    which = named(f"objective {name!r}", part, "loss")
    context = Context(steps=steps, term=name, scale=scale)
    if which in CRITICS:
        return call("loss", CRITICS, part, context, "loss")
    if which not in LOSSES:
        raise ValueError(unknown("loss", which, [*LOSSES, *CRITICS]))
    loss = LOSSES[which]
    shared = checked(f"loss {which!r}", _joint(loss), less(part, "loss"), context)
    matched = {key: shared.pop(key) for key in keys(_matched) if key in shared}
    matched = _matched(context, **matched)
    parameters = list(inspect.signature(loss).parameters)
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


def student_taps(entries: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The taps of the student that an objective reads."""
    paths: list[str] = []
    for entry in entries.values():
        paths += [entry.get("student", "out"), *(entry.get("arguments") or {}).values()]
        paths += [entry["kept"]] if entry.get("kept") else []
    return objective.taps_of(*paths)


def target_paths(entries: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of targets that an objective reads."""
    paths = [entry.get("target", "out") for entry in entries.values()]
    for entry in entries.values():
        arguments = map(str, (entry.get("arguments") or {}).values())
        paths += [path.removeprefix("target/") for path in arguments if path.startswith("target/")]
    # Those that are no strings are told of where their entry is made.
    named = [path for path in paths if isinstance(path, str)]
    return tuple(path for path in dict.fromkeys(named) if path and not path.startswith("batch/"))


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
    return targets.live(net, stage, inputs="teacher", taps=taps, mode=mode)


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
    answer = ("out",) if any(path.split("/")[0] == "out" for path in paths) else ()
    return (*answer, *objective.taps_of(*paths))


def _of_member(kind: str, member: str, paths: Sequence[str]) -> tuple[str, ...]:
    # An ensemble averages the answers of its members, whatever else is read of them.
    return (*(("out",) if kind == "ensemble" else ()), *_under(member, paths))


def _under(member: str, paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(path.removeprefix(f"{member}/") for path in paths if path.startswith(f"{member}/"))
