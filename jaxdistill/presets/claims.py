"""What claims ask of their arms: differences, gates that one arm must pass, grids of rates.

Of all of them the interval over seeds must lie above the margin, see :mod:`jaxdistill.claim`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def above(
    better: str, worse: str, sentence: str, margin: float = 0.0, metric: str = "", origin: str = ""
) -> dict[str, Any]:
    """One arm lies above another, by a margin; a negative one lets it lie a little below. Of a
    loss, where less is better, the worse arm goes first. ``origin`` says whose the margin is:
    ``"paper"``, or our reason for it.

    Example:
        >>> above("distilled", "alone", "distilled beats alone", 0.01)
        {'sentence': 'distilled beats alone', 'coefficients': {'distilled': 1, 'alone': -1},
         'margin': 0.01}
    """
    return _contrast({better: 1, worse: -1}, sentence, margin, metric, origin)


def reaches(
    arm: str, least: float, sentence: str, metric: str = "", origin: str = ""
) -> dict[str, Any]:
    """An arm's metric is at least so high.

    Example:
        >>> reaches("student", 0.8, "in one step")
        {'sentence': 'in one step', 'coefficients': {'student': 1}, 'margin': 0.8}
    """
    return _contrast({arm: 1}, sentence, least, metric, origin)


def within(
    arm: str, most: float, sentence: str, metric: str = "", origin: str = ""
) -> dict[str, Any]:
    """An arm's metric, a distance or a number of errors, is at most so high.

    Example:
        >>> within("student", 0.06, "near the density")["margin"]
        -0.06
    """
    return _contrast({arm: -1}, sentence, -most, metric, origin)


def _contrast(
    coefficients: dict[str, int], sentence: str, margin: float, metric: str, origin: str
) -> dict[str, Any]:
    found: dict[str, Any] = {"sentence": sentence, "coefficients": coefficients}
    if margin:
        found["margin"] = {"value": margin, "from": origin} if origin else margin
    return found | ({"metric": metric} if metric else {})


def rates(
    stage: str, values: Sequence[float], arm: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """A grid of peak learning rates of a stage, for ``tune``.

    Example:
        >>> rates("distil", (1e-3,))
        {'rate 1e-03': {'stages/distil/optimizer/learning_rate/peak': 0.001}}
    """
    path = f"stages/{stage}/optimizer/learning_rate/peak"
    return {f"rate {value:.0e}": {**(arm or {}), path: value} for value in values}


def tuned(stage: str, arms: Iterable[str], values: Sequence[float]) -> dict[str, Any]:
    """``tune`` of a claim: the same peak rates for a stage in every arm, by its accuracy on
    validation data, with two seeds.

    Example:
        >>> tuned("distil", ("plain",), (1e-3,))["metric"]
        'distil/validation/accuracy'
    """
    grid = {arm: rates(stage, values) for arm in arms}
    return {"metric": f"{stage}/validation/accuracy", "seeds": 2, "grid": grid}
