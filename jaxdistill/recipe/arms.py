"""The claim and the tuning grid of a config, checked on all arms before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxdistill import claims, registry
from jaxdistill.data import split
from jaxdistill.recipe.planned import Plan
from jaxdistill.recipe.resolving import resolve


def check_claim(config: Mapping[str, Any], read: dict[str, split.Splits] | None = None) -> None:
    """Resolves all arms of the claim and of the tuning grid, and looks for their metrics.

    Args:
        config: as plain data; one without claim and grid passes.
        read: sets that are read already, see :func:`~jaxdistill.recipe.resolve`.

    Raises:
        ValueError: listing all faults, a line each.
    """
    read = {} if read is None else read
    faults: list[str] = []
    if config.get("claim"):
        arms = {f"arm {name!r}": arm for name, arm in claims.arms_of(config).items()}
        names = _measured(arms, read, faults)
        if not faults:
            claims.refuse_others(config, {name[5:-1]: own for name, own in names.items()})
    if config.get("tune"):
        candidates = {
            f"setting {label!r} of arm {arm!r}": candidate
            for (arm, label), candidate in claims.candidates_of(config).items()
        }
        for label, names in _measured(candidates, read, faults).items():
            claims.refuse_unmeasured(config["tune"]["metric"], label, names)
    if faults:
        raise ValueError("\n".join(dict.fromkeys(faults)))


def _measured(
    configs: Mapping[str, Mapping[str, Any]], read: dict[str, split.Splits], faults: list[str]
) -> dict[str, set[str]]:
    """What each config measures; what is wrong with any is added to ``faults``."""
    found = {}
    for name, config in configs.items():
        try:
            found[name] = metrics(resolve(config, read))
        except ValueError as fault:
            faults += [f"{name}: {line}" for line in str(fault).splitlines()]
    return found


def metrics(plan: Plan) -> set[str]:
    """What a recipe measures, as ``<stage>/<set>/<name>``; what its last stage measures also as
    ``last/...``. ``<stage>/<set>/`` stands for names that are not known yet: those of step metrics,
    and of evaluators that do not say what they measure."""
    found: set[str] = set()
    for planned in plan.stages:
        names = {"step_flops", "train/"}
        names |= {f"train/{span}/" for span in planned.settings["spans"] or ()}
        if planned.metrics is None:
            specs = planned.settings["evaluate"].items()
            sets = {
                s
                for label, spec in specs
                for s in registry.evaluated(label, spec, planned.data).sets
            }
            names |= {f"{part}/" for part in sets}
        own = {*names, *(planned.metrics or ())}
        own |= {
            f"{teacher}:{name}"
            for teacher in planned.needs
            for name in own
            if name.startswith("validation/")
        }
        stages = (planned.name, "last") if planned is plan.stages[-1] else (planned.name,)
        found |= {f"{stage}/{name}" for stage in stages for name in own}
    return found
