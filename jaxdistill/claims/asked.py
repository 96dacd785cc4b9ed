"""What a config claims: its arms, its contrasts, and what each must be above."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jaxdistill._errors import unknown
from jaxdistill.overrides import flattened, override
from jaxdistill.settings import Count, fault

CLAIM_KEYS: dict[str, Any] = {
    "metric": str,
    "common": Mapping[str, Any] | None,
    "arms": Mapping[str, Mapping[str, Any] | None],
    "contrasts": Mapping[str, Mapping[str, Any]],
    "held_equal": Sequence[str],
    "sentence": str,
}
CONTRAST_KEYS: dict[str, Any] = {
    "sentence": str,
    "coefficients": Mapping[str, float],
    "metric": str,
    "margin": float | Mapping[str, Any],  # {"value": number, "from": "paper" or our reason}
    "chosen": str,
    "grid": Sequence[str],
}


TUNE_KEYS: dict[str, Any] = {
    "metric": str,
    "lower": bool,
    "seeds": Count,
    "grid": Mapping[str, Mapping[str, Mapping[str, Any]]],
}


def arms_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The config of every arm, checked.

    Raises:
        ValueError: for an unknown key, a value that its key does not take, and a contrast of
            unknown arms.
    """
    claim = config.get("claim")
    if not claim:
        raise ValueError("this config makes no claim: it has no 'claim'")
    refuse("the claim", claim, CLAIM_KEYS, ("metric", "arms", "contrasts"))
    base = override(config, flattened(claim.get("common") or {}))
    arms = {}
    for name, changes in claim["arms"].items():
        arms[name] = override(base, flattened(changes or {}))
    for name, contrast in claim["contrasts"].items():
        refuse(f"contrast {name!r}", contrast, CONTRAST_KEYS)
        margin_of(name, contrast)
        for arm in arms_in(name, contrast):
            if arm not in arms:
                raise ValueError(unknown(f"arm in contrast {name!r}", arm, arms))
    return arms


def candidates_of(config: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The config of every setting of every arm that is tuned, by arm and label.

    Raises:
        ValueError: if there is no ``tune``, for a key, arm or metric that it cannot have, and for a
            metric of the test set.
    """
    tune = config.get("tune")
    if not tune:
        raise ValueError("this config has nothing to tune: it has no 'tune'")
    refuse("tune", tune, TUNE_KEYS, ("metric", "grid"))
    if "/test/" in tune["metric"]:
        raise ValueError(f"tuning reads the validation set, not {tune['metric']!r}")
    arms = arms_of(config)
    for arm in tune["grid"]:
        if arm not in arms:
            raise ValueError(unknown("arm in the grid of tune", arm, arms))
    return {
        (arm, label): override(arms[arm], flattened(changes))
        for arm, grid in tune["grid"].items()
        for label, changes in grid.items()
    }


def refuse(
    what: str, settings: Mapping[str, Any], domains: Mapping[str, Any], needed: Sequence[str] = ()
) -> None:
    """Refuses unknown keys, values that they do not take, and keys that are missing."""
    for key, value in settings.items():
        if key not in domains:
            raise ValueError(unknown(f"key of {what}", key, domains))
        if (wrong := fault(value, domains[key])) is not None:
            raise ValueError(f"{key!r} of {what} is {value!r}: it {wrong}")
    for key in needed:
        if not settings.get(key):
            raise ValueError(f"{what} needs {key!r}")


def margin_of(name: str, contrast: Mapping[str, Any]) -> tuple[float, str]:
    """What a contrast must be above, and whose number that is.

    Example:
        >>> margin_of("gain", {"margin": {"value": 0.03, "from": "paper"}})
        (0.03, "the paper's")
        >>> margin_of("gain", {"margin": {"value": -0.01, "from": "the least that users notice"}})
        (-0.01, 'ours: the least that users notice')
        >>> margin_of("gain", {"margin": 0.03}), margin_of("gain", {})
        ((0.03, 'ours, without a reason'), (0.0, ''))
    """
    margin = contrast.get("margin", 0.0)
    if not isinstance(margin, Mapping):
        return float(margin), "ours, without a reason" if margin else ""
    domains = {"value": float, "from": str}
    refuse(f"the margin of contrast {name!r}", margin, domains, ("from",))
    if "value" not in margin:
        raise ValueError(f"the margin of contrast {name!r} needs 'value'")
    origin = margin["from"]
    return float(margin["value"]), "the paper's" if origin == "paper" else f"ours: {origin}"


def arms_in(name: str, contrast: Mapping[str, Any]) -> list[str]:
    """The arms of a contrast: those with coefficients, or a chosen one and those of its grid."""
    if ("grid" in contrast) == ("coefficients" in contrast):
        raise ValueError(f"contrast {name!r} needs either 'coefficients', or 'chosen' and 'grid'")
    if "grid" not in contrast:
        if not contrast["coefficients"]:
            raise ValueError(f"contrast {name!r} needs an arm in 'coefficients'")
        return list(contrast["coefficients"])
    if not contrast.get("chosen"):
        raise ValueError(f"contrast {name!r} needs 'chosen', the arm to compare with the grid")
    return [contrast["chosen"], *contrast["grid"]]


def refuse_unmeasured(metric: str, arm: str, names: Collection[str]) -> None:
    """Refuses a metric that an arm does not measure.

    Args:
        metric: ``<stage>/<set>/<name>``, ``last`` being the last stage.
        arm: whose metric it is, for the message.
        names: of all that it measures; ``<stage>/<set>/`` stands for all of a set.

    Raises:
        ValueError: with the nearest name there is.
    """
    if metric not in names and metric.rpartition("/")[0] + "/" not in names:
        raise ValueError(unknown(f"metric of arm {arm!r}", metric, names))


def refuse_others(config: Mapping[str, Any], names: Mapping[str, Collection[str]]) -> None:
    """Refuses a claim about what its arms do not measure, and a ``table`` of what none measures.

    Args:
        config: with the claim.
        names: for every arm what it measures, see :func:`refuse_unmeasured`.
    """
    claim = config["claim"]
    for arm in names:
        refuse_unmeasured(claim["metric"], arm, names[arm])
    for name, contrast in claim["contrasts"].items():
        for arm in arms_in(name, contrast):
            refuse_unmeasured(metric_of(claim, contrast), arm, names[arm])
    # A table has a column for every stage, so that its metrics are named without one.
    there = {name.partition("/")[2] for own in names.values() for name in own}
    for metric in config.get("table") or ():
        if metric not in there and metric.rpartition("/")[0] + "/" not in there:
            raise ValueError(unknown("metric of the table", metric, there))


def metric_of(claim: Mapping[str, Any], contrast: Mapping[str, Any]) -> str:
    """The metric of a contrast: its own, or the claim's."""
    return contrast.get("metric") or claim["metric"]
