"""Work that trains nothing: ``work`` of a stage, and ``between`` the steps of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jaxdistill import search
from jaxdistill.distiller import Work
from jaxdistill.registry import condense, language, pools, written
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, found, less, named, offered, stages_in
from jaxdistill.settings import Count, fault

WORKS: dict[str, Entry] = {
    **condense.WORKS,
    **written.WORKS,
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


BETWEEN: dict[str, Entry] = {**language.BETWEEN, **pools.BETWEEN}


def between(part: Mapping[str, Any], context: Context) -> tuple[int, Callable[..., Any]]:
    """Host work between the steps of a stage, for ``Stage.between``.

    Args:
        part: its ``name``, after how many steps it is done again (``every``), and its own keywords.
            The plan that it makes may hold ``weights``, the shares of the groups of the training
            set in the next batches, and ``metrics``, numbers for the log.
        context: what the runner offers.
    """
    kind = "work between steps"
    every = part.get("every", 0)
    if (wrong := fault(every, Count)) is not None:
        raise ValueError(f"'every' of {kind} {part.get('name')!r} is {every!r}: it {wrong}")
    return every, call(kind, BETWEEN, less(part, "every"), context)
