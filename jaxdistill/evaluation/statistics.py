"""Statistics of claims: contrasts of arms over paired seeds, and what their intervals show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from jaxdistill._errors import unknown


def contrast(
    values: Mapping[str, Sequence[float]], coefficients: Mapping[str, float]
) -> np.ndarray:
    """A weighted sum of arms, seed by seed.

    Args:
        values: for every arm one value a seed, the seeds in one order.
        coefficients: the weight of every arm that takes part: ``{"distilled": 1, "plain": -1}``.

    Returns:
        float64 ``[seeds]``.

    Raises:
        ValueError: for no arm, an arm that there is not, or arms with different numbers of seeds.

    Example:
        >>> contrast({"new": [0.75, 0.5], "old": [0.5, 0.5]}, {"new": 1, "old": -1})
        array([0.25, 0.  ])
    """
    if not coefficients:
        raise ValueError("a contrast needs at least one arm")
    for arm in coefficients:
        if arm not in values:
            raise ValueError(unknown("arm", arm, values))
    seeds = {arm: len(values[arm]) for arm in coefficients}
    if len(set(seeds.values())) > 1:
        raise ValueError(f"every arm needs the same seeds, but there are {seeds}")
    return np.sum(
        [weight * np.asarray(values[arm], np.float64) for arm, weight in coefficients.items()],
        axis=0,
    )


def paired_interval(
    differences: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> tuple[float, float, float]:
    r"""Mean and interval of differences by Student's t: :math:`\bar d \pm t_{n-1} s / \sqrt n`.

    Args:
        differences: one for every seed, from runs that share all but what is compared.
        confidence: how often the interval covers the true mean, if differences are normal.

    Returns:
        ``(mean, low, high)``. One difference, or one that is not finite, shows nothing: the
        interval is infinite.

    Raises:
        ValueError: without differences, or for a confidence that is not between 0 and 1.

    Example:
        >>> [round(x, 3) for x in paired_interval([1.0, 2.0, 3.0])]
        [2.0, -0.484, 4.484]

    References:
        Student. The Probable Error of a Mean. Biometrika 1908.
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 1 or not d.size:
        raise ValueError(f"differences must be one number a seed, got shape {d.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    mean = float(d.mean())
    if d.size == 1 or not np.isfinite(d).all():
        return mean, -math.inf, math.inf
    from scipy.special import stdtrit

    half = float(stdtrit(d.size - 1, (1 + confidence) / 2) * d.std(ddof=1) / math.sqrt(d.size))
    return mean, mean - half, mean + half


def verdict(
    low: float, high: float, margin: float = 0.0
) -> Literal["holds", "not shown", "contradicted"]:
    """What an interval says to the claim that a contrast is larger than a margin.

    Example:
        >>> verdict(0.01, 0.03), verdict(-0.01, 0.03), verdict(-0.03, -0.01)
        ('holds', 'not shown', 'contradicted')
        >>> verdict(0.01, 0.03, margin=0.02)
        'not shown'
    """
    if low > margin:
        return "holds"
    return "contradicted" if high < margin else "not shown"
