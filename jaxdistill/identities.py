"""What the result of a stage depends on, as a hash that names its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxdistill import registry
from jaxdistill._errors import unknown
from jaxdistill.config import (
    choice_stages,
    data_stage,
    depends_on,
    frozen_stages,
    stage_settings,
    target_stages,
)
from jaxdistill.training.checkpoint import digest


def identities(config: Mapping[str, Any]) -> dict[str, str]:
    """For every stage of the recipe a hash of all that its result depends on."""
    found: dict[str, str] = {}
    for name, settings in stage_settings(config).items():
        needs = needs_of(name, settings, list(found))
        own = depends_on(settings, config)
        found[name] = digest({**own, "needs": {other: found[other] for other in needs}})
    return found


def needs_of(name: str, settings: Mapping[str, Any], earlier: Sequence[str]) -> tuple[str, ...]:
    """The earlier stages whose results a stage reads: its teachers, what else its algorithm holds
    frozen, what its work reads, what its net is built on, what its weights are, what it starts
    from, what it is trained on, and what says its settings.

    Raises:
        ValueError: for one that does not come before it.
    """
    needs = [*target_stages(settings["targets"]), *frozen_stages(settings)]
    if settings["work"]:
        needs += registry.needed(settings["work"])
    needs += registry.shared(settings["student"])
    needs += [other for other in (settings["weights"], data_stage(settings)) if other]
    needs += choice_stages(settings)
    if settings["initial"]:
        needs.append(registry.named(f"'initial' of stage {name!r}", settings["initial"], "stage"))
    for other in needs:
        if other not in earlier:
            raise ValueError(
                f"stage {name!r} builds on a stage that does not come before it: "
                + unknown("stage", other, earlier)
            )
    return tuple(dict.fromkeys(needs))
