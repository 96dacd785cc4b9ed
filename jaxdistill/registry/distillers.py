"""Algorithms other than from model to model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jaxdistill.distiller import Distiller
from jaxdistill.registry import condense, language, samplers
from jaxdistill.registry._names import call, named, without
from jaxdistill.theory import machines


def _self_distilled_fit(
    student: Mapping[str, Any],
    ridge: float,
    info: Mapping[str, Any],
    prepare: Any,
    weight: Any = 0.0,
    held_out: str = "validation",
) -> Distiller:
    return machines.self_distilled_fit(
        condense.kernel_of("self_distilled_fit", student),
        info.get("classes", 1),
        prepare,
        ridge=ridge,
        weight=weight,
        held_out=held_out,
    )


# Each is given by keyword what it has a parameter for, see distiller().
DISTILLERS: dict[str, Callable[..., Distiller]] = {
    "self_distilled_fit": _self_distilled_fit,
    **condense.DISTILLERS,
    **samplers.DISTILLERS,
    **language.DISTILLERS,
}
# What the recipe itself reads of a stage's 'distiller'.
SHARED = ("name", "frozen", "sets")


def distiller(settings: Mapping[str, Any], **given: Any) -> Distiller:
    """The algorithm that ``distiller`` of a stage names.

    Args:
        settings: its ``name``; ``frozen``, the earlier stages whose results it reads; ``sets``, the
            parts of the data that it reads whole; and its own keywords.
        given: what it may have a parameter for: ``net``, the stage's student, and ``student``,
            what the config says of it; ``nets``, those of earlier stages; ``tx``, the optimizer;
            ``prepare``, the view; ``steps``; ``info`` of the data, and of that ``image_shape`` and
            ``classes``; ``seed``; ``initial``, the name of what it starts from; ``optimizer``, what
            the config says of it, and ``transformation``, which makes one for a number of steps;
            ``frozen``, the names of the earlier stages that it reads, and ``codecs``, of their
            outputs where these are read from disk.

    Raises:
        ValueError: for an unknown name or key, with the nearest valid one.
    """
    name = named("distiller", settings)
    given["frozen"] = tuple(settings.get("frozen") or ())
    info = given.get("info") or {}
    given |= {key: info[key] for key in ("image_shape", "classes") if key in info}
    return call("distiller", DISTILLERS, name, without(settings, *SHARED), **given)
