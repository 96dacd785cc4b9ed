"""What measured arms say to a claim."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxdistill._errors import unknown
from jaxdistill.claims.asked import arms_in, margin_of, metric_of
from jaxdistill.evaluation import statistics


def answer(
    claim: Mapping[str, Any],
    found: Mapping[str, list[dict[str, float]]],
    seeds: Sequence[int] = (),
    records: Mapping[str, int | None] | None = None,
) -> dict[str, Any]:
    """What the measured arms say to the claim's contrasts.

    Args:
        claim: of a config.
        found: for every arm a dict of metrics a seed.
        seeds: which these are, for messages; from 0 on by default.
        records: of metrics, how many records they are measured on, where that is known.

    Raises:
        ValueError: for a metric that was not measured, and for a value that is not finite, naming
            metric, arm and seed.
    """

    def values(metric: str, arms: Sequence[str]) -> dict[str, list[float]]:
        return {name: finite_values(metric, name, found[name], seeds) for name in arms}

    asked: dict[str, Asked] = {}
    for name, contrast in claim["contrasts"].items():
        metric = metric_of(claim, contrast)
        own = values(metric, arms_in(name, contrast))
        step = statistics.resolution_of(
            [v for each in own.values() for v in each], (records or {}).get(metric)
        )
        ask = _against_grid if "grid" in contrast else _weighted
        asked[name] = ask(name, contrast, own, step)
    answered = statistics.holm(
        {name: each.interval for name, each in asked.items()},
        {name: each.margin for name, each in asked.items()},
    )
    contrasts = {
        name: {
            "sentence": claim["contrasts"][name].get("sentence", ""),
            "metric": metric_of(claim, claim["contrasts"][name]),
            "coefficients": each.coefficients,
            "margin": each.margin,
            "margin_from": each.origin,
            "differences": each.differences,
            **answered[name]._asdict(),
            **each.further,
        }
        for name, each in asked.items()
    }
    arms = values(claim["metric"], list(found))
    step = statistics.resolution_of(
        [v for each in arms.values() for v in each], (records or {}).get(claim["metric"])
    )
    return {
        "sentence": claim.get("sentence", ""),
        "held_equal": list(claim.get("held_equal", ())),
        "metric": claim["metric"],
        "arms": arms,
        "intervals": {
            name: statistics.paired_interval(own, resolution=step) for name, own in arms.items()
        },
        "contrasts": contrasts,
        "verdict": statistics.overall([a.verdict for a in answered.values()]),
    }


class Asked(NamedTuple):
    """A contrast with its values.

    Attributes:
        coefficients: of the arms.
        differences: one a seed.
        margin: what they must be above.
        origin: where the margin comes from.
        interval: of a confidence.
        further: what else is said of it.
    """

    coefficients: dict[str, float]
    differences: list[float]
    margin: float
    origin: str
    interval: Callable[[float], tuple[float, float, float]]
    further: dict[str, Any]


def finite_values(
    metric: str, arm: str, runs: Sequence[Mapping[str, float]], seeds: Sequence[int] = ()
) -> list[float]:
    """A metric of an arm, seed by seed; refused if it was not measured or is not finite."""
    seeds = seeds or range(len(runs))
    for seed, run in zip(seeds, runs, strict=True):
        if metric not in run:
            raise ValueError(unknown(f"metric of arm {arm!r}", metric, run))
        if not math.isfinite(run[metric]):
            raise ValueError(
                f"{metric} of arm {arm!r} with seed {seed} is {run[metric]}: the claim is not "
                "answered with what is not finite"
            )
    return [float(run[metric]) for run in runs]


def _weighted(
    name: str,
    contrast: Mapping[str, Any],
    values: Mapping[str, Sequence[float]],
    step: float | None,
) -> Asked:
    """A contrast of weighted arms."""
    coefficients = dict(contrast["coefficients"])
    differences = statistics.contrast(values, coefficients)
    largest = max(abs(weight) for weight in coefficients.values())
    interval = functools.partial(
        statistics.paired_interval, differences, resolution=step and step * largest
    )
    return Asked(
        coefficients, differences.tolist(), *margin_of(name, contrast), interval, further={}
    )


def _against_grid(
    name: str,
    contrast: Mapping[str, Any],
    values: Mapping[str, Sequence[float]],
    step: float | None,
) -> Asked:
    """A chosen arm against the best of a grid, in a loss.

    Without a margin a tenth of what the grid spans may be lost. A grid that spans no more than the
    margin has left nothing to choose, and its interval is infinite.
    """
    chosen, grid = contrast["chosen"], list(contrast["grid"])
    means = {arm: sum(values[arm]) / len(values[arm]) for arm in grid if arm != chosen}
    best = min(means, key=lambda arm: means[arm])
    coefficients: dict[str, float] = {best: 1, chosen: -1}
    spread = max(means.values()) - means[best]
    margin, origin = margin_of(name, contrast)
    if "margin" not in contrast:
        margin, origin = -spread / 10, "ours: a tenth of what the grid spans"

    def interval(confidence: float) -> tuple[float, float, float]:
        found = statistics.grid_interval(values, chosen, grid, confidence, step)
        return found if spread > -margin else (found[0], -math.inf, math.inf)

    differences = statistics.contrast(values, coefficients).tolist()
    further = {"spread": spread, "rule": "non-inferiority"}
    return Asked(coefficients, differences, margin, origin, interval, further)
