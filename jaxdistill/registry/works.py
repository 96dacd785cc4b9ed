"""Work that trains nothing, for ``work`` of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxdistill import search
from jaxdistill.distiller import Work
from jaxdistill.registry import condense
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, found, named, offered, stages_in

WORKS: dict[str, Entry] = {
    **condense.WORKS,
    "guided_weights": offered(search.guided_weights),
    "transfer_weights": offered(search.transfer_weights),
}


def work(part: Mapping[str, Any], context: Context) -> Work:
    """The work that ``work`` of a stage names.

    Args:
        part: its ``name`` and its own keywords.
        context: what the runner offers: the nets of earlier stages, all sets, the seed of the run.

    Raises:
        ValueError: for an unknown name or key, with the nearest valid one, and for a stage that
            does not come before this one.
    """
    for stage in needed(part):
        context.net_of(stage)
    return call("work", WORKS, part, context)


def needed(part: Mapping[str, Any]) -> tuple[str, ...]:
    """The earlier stages whose results a work reads, by the domains of its keywords.

    Example:
        >>> needed({"name": "guided_weights", "first": "a", "alone": "b", "clip": True})
        ('a', 'b')
    """
    return stages_in(found("work", WORKS, named("work", part)), part)
