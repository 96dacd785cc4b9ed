"""Names of what is measured of samplers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jaxdistill import samplers
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, forwarding, less
from jaxdistill.registry.samplers import density_of, teacher_of
from jaxdistill.samplers import agreement, quality
from jaxdistill.settings import Count

# Records in a batch that a classifier looks at.
BATCH = 250


@forwarding(quality.density_quality)
def _density_quality(context: Context, *, density: Mapping[str, Any], **rest: Any) -> Any:
    return quality.density_quality(context.net, density_of(density), context.seed, **rest)


@forwarding(samplers.path_quality)
def _path_quality(context: Context, *, density: Mapping[str, Any], **rest: Any) -> Any:
    return samplers.path_quality(context.net, density_of(density), context.seed, **rest)


@forwarding(quality.sampler)
def _compared(
    context: Context, *, stage: str, in_steps: Sequence[Count], **rest: Any
) -> tuple[str, Callable[..., jax.Array], tuple[int, ...]]:
    """Another sampler that samples are compared with."""
    net = context.net_of(stage, "stage to compare with")
    return stage, quality.sampler(net, **rest), tuple(in_steps)


@forwarding(quality.image_quality)
def _image_quality(
    context: Context,
    *,
    classifier: str,
    against: Mapping[str, Any] | None = None,
    **rest: Any,
) -> Any:
    teacher = None
    if against is not None:
        part = {"name": "sampler", **less(against, "name")}
        teacher = call("teacher to compare with", {"sampler": _compared}, part, context)
    return quality.image_quality(
        context.net,
        (classifier, context.net_of(classifier, "stage of the classifier")),
        evaluation_batches(context.sets["train"], BATCH),
        context.classes or 0,
        context.prepare,
        teacher,
        context.seed,
        **rest,
    )


@forwarding(agreement.guidance_left)
def _guidance_left(context: Context, *, guide: Mapping[str, Any], **rest: Any) -> Any:
    teacher = teacher_of(guide, context)
    return agreement.guidance_left(context.net, teacher, context.prepare, **rest)


@forwarding(quality.signal_error)
def _signal_error(context: Context, *, density: Mapping[str, Any], **rest: Any) -> Any:
    return quality.signal_error(context.net, density_of(density), context.seed, **rest)


EVALUATORS: dict[str, Entry] = {
    "guidance_left": _guidance_left,
    "signal_error": _signal_error,
    "density_quality": _density_quality,
    "image_quality": _image_quality,
    "path_quality": _path_quality,
}
