"""What a stage minimises, and where what it learns from comes from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax

from jaxdistill import adapt, critics, losses, objective, targets
from jaxdistill._errors import unknown
from jaxdistill.net import Net
from jaxdistill.registry._names import call, named, without
from jaxdistill.registry.schedules import schedule

LOSSES: dict[str, Callable[..., jax.Array]] = {
    entry.loss.__name__: entry.loss for entry in losses.catalogue()
}
PROJECTORS: dict[str, Callable[..., Net]] = {
    "linear": adapt.linear,
    "mlp": adapt.mlp,
    "convolution": adapt.convolution,
    "resize": adapt.resize,
}

MATCH_KEYS = ("loss", "student", "target", "weight", "where", "arguments", "projector")


CRITICS: dict[str, Callable[..., objective.Objective]] = {
    "cooperative_discriminator": critics.cooperative_discriminator,
}


def match(
    name: str, settings: Mapping[str, Any], steps: int, *, scale: float = 1.0
) -> objective.Objective:
    """One entry of ``objective``: a loss between an array of the student and one of its targets,
    its weight times ``scale``.
    """
    if settings.get("loss") in CRITICS:
        own: dict[str, Any] = {k: schedule(v, steps) for k, v in without(settings, "loss").items()}
        own |= {"name": name, "weight": _scaled(own.get("weight", 1.0), scale)}
        return call("loss", CRITICS, settings["loss"], own)
    loss_name = named(f"objective {name!r}", settings, "loss")
    if loss_name not in LOSSES:
        raise ValueError(unknown("loss", loss_name, [*LOSSES, *CRITICS]))
    loss = LOSSES[loss_name]
    parameters = inspect.signature(loss).parameters
    hyper = without(settings, *MATCH_KEYS)
    for key in hyper:
        if key not in parameters:
            raise ValueError(unknown(f"key of loss {loss_name!r}", key, [*parameters, *MATCH_KEYS]))
    arguments = dict(settings.get("arguments") or {})
    if "labels" in parameters and list(parameters).index("labels") > 1:
        arguments.setdefault("labels", "batch/label")
    build, projector = None, settings.get("projector")
    if projector:
        spec = {"name": projector} if isinstance(projector, str) else projector
        kind = named("projector", spec)
        if kind not in PROJECTORS:
            raise ValueError(unknown("projector", kind, PROJECTORS))
        extra = without(spec, "name")
        build = partial(PROJECTORS[kind], **extra)
    return objective.match(
        loss,
        name=name,
        student=settings.get("student", "out"),
        target=settings.get("target", "out"),
        weight=_scaled(schedule(settings.get("weight", 1.0), steps), scale),
        where=settings.get("where"),
        arguments=arguments,
        projector=build,
        **{key: schedule(value, steps) for key, value in hyper.items()},
    )


def student_taps(entries: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The taps of the student that an objective reads."""
    paths: list[str] = []
    for entry in entries.values():
        paths += [entry.get("student", "out"), *(entry.get("arguments") or {}).values()]
    return objective.taps_of(*paths)


def target_paths(entries: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of targets that an objective reads."""
    paths = [entry.get("target", "out") for entry in entries.values()]
    for entry in entries.values():
        arguments = (entry.get("arguments") or {}).values()
        paths += [path.removeprefix("target/") for path in arguments if path.startswith("target/")]
    return tuple(path for path in dict.fromkeys(paths) if path and not path.startswith("batch/"))


def _scaled(weight: Any, scale: float) -> Any:
    if not callable(weight):
        return scale * weight
    given: Any = weight
    return lambda step: scale * given(step)


TARGET_KEYS = {
    "live": ("stage", "mode"),
    "ema": ("mode",),
    "self": ("mode",),
    "ensemble": ("members", "weights", "average"),
    "merge": ("members",),
    "labels": ("key",),
}


def target(
    settings: Mapping[str, Any] | None,
    paths: Sequence[str],
    nets: Mapping[str, Net],
    student: Net,
    codecs: Mapping[str, Any] | None = None,
) -> Callable[..., dict[str, Any]]:
    """What a stage learns from.

    Args:
        settings: ``config.stages.<name>.targets``; None for a stage that learns from its batches
            alone.
        paths: the names of targets that the objective reads, see :func:`target_paths`.
        nets: the nets of earlier stages.
        student: the stage's own net.
        codecs: of the outputs of earlier stages that are read from disk; None where they run.
    """
    if settings is None:
        return lambda sources, batch, key, step: {}
    kind = settings.get("kind", "live")
    if kind not in TARGET_KEYS:
        raise ValueError(unknown("kind of targets", kind, TARGET_KEYS))
    for key in without(settings, "kind", "cached"):
        if key not in TARGET_KEYS[kind]:
            raise ValueError(unknown(f"key of {kind!r} targets", key, TARGET_KEYS[kind]))
    mode = settings.get("mode") or "eval"
    if kind in ("ema", "self"):
        return targets.live(
            student, kind, inputs="teacher", taps=objective.taps_of(*paths), mode=mode
        )
    if kind == "live":
        stage = named("targets", settings, "stage")
        if stage not in nets:
            raise ValueError(unknown("earlier stage", stage, nets))
        if codecs is not None:
            return targets.cached(codecs, stage, _read(paths))
        return targets.live(
            nets[stage], stage, inputs="teacher", taps=objective.taps_of(*paths), mode=mode
        )
    if kind == "labels":
        return targets.labels(settings.get("key") or "label")
    listed: Any = named("targets", settings, "members")
    members = {
        name: target(member, _of_member(kind, name, paths), nets, student, codecs)
        for name, member in listed.items()
    }
    if kind == "merge":
        return targets.merge(members)
    return targets.ensemble(members, **without(settings, "kind", "members", "cached"))


def stored(settings: Mapping[str, Any] | None, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What a cache must hold for some targets: for every earlier stage the outputs that are read.

    Raises:
        ValueError: for a teacher in training mode, whose outputs hang on the batch it is in.
    """
    if not settings or settings.get("kind", "live") in ("ema", "self", "labels"):
        return {}
    kind = settings.get("kind", "live")
    if kind == "live":
        if (settings.get("mode") or "eval") != "eval":
            raise ValueError(
                f"teacher {settings['stage']!r} is in mode {settings['mode']!r}: what it gives "
                "hangs on its batch, so it cannot be cached; only mode 'eval' can"
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
