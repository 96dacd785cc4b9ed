"""Algorithms other than from model to model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxdistill.distiller import Distiller, on_shared
from jaxdistill.registry import condense, language, samplers
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, forwarding, less
from jaxdistill.theory import machines


@forwarding(machines.self_distilled_fit)
def _self_distilled_fit(context: Context, **rest: Any) -> Distiller:
    kernel = condense.kernel_of("self_distilled_fit", context)
    return machines.self_distilled_fit(kernel, context.classes or 1, context.prepare, **rest)


DISTILLERS: dict[str, Entry] = {
    "self_distilled_fit": _self_distilled_fit,
    **condense.DISTILLERS,
    **samplers.DISTILLERS,
    **language.DISTILLERS,
}
# What the recipe itself reads of a stage's 'distiller'.
SHARED = ("frozen", "sets")


def distiller(part: Mapping[str, Any], context: Context) -> Distiller:
    """The algorithm that ``distiller`` of a stage names.

    Args:
        part: its ``name``; ``frozen``, the earlier stages whose results it reads; ``sets``, the
            parts of the data that it reads whole; and its own keywords.
        context: what the runner offers.

    Raises:
        ValueError: for an unknown name or key, with the nearest valid one.
    """
    context = dataclasses.replace(context, frozen=tuple(part.get("frozen") or ()))

    def made(net: Any) -> Distiller:
        own = dataclasses.replace(context, student_net=net)
        return call("distiller", DISTILLERS, less(part, *SHARED), own)

    return made(None) if context.student_net is None else on_shared(made, context.student_net)
