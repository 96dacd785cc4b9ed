"""Statistics of claims: contrasts of arms over paired seeds, and what their intervals show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

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


class Choice(NamedTuple):
    """How a chosen arm stands against the best of a grid.

    Attributes:
        differences: ``[seeds]``, the best arm's loss less the chosen one's: below 0 it is worse.
        error: the standard error of the best arm's mean loss, seeds' own means taken off.
        spread: of the grid, its worst mean less its best.
        best: the arm of the grid with the least mean.
        verdict: see :func:`one_standard_error`.
    """

    differences: np.ndarray
    error: float
    spread: float
    best: str
    verdict: Literal["holds", "not shown", "contradicted"]


def one_standard_error(
    losses: Mapping[str, Sequence[float]], chosen: str, grid: Sequence[str]
) -> Choice:
    """Whether an arm is as good as the best of a grid, up to one standard error of that one's mean.

    It holds if the chosen arm's mean loss is at most the least of the grid plus its standard error,
    and so is not worse than any arm of the grid by more; it is contradicted if not. Where the
    grid's own spread is not above three standard errors there was nothing to choose, and it is not
    shown. As arms share their seeds, what a seed does to all of them does not count: the error is
    that of the losses less the seed's mean over the grid.

    Args:
        losses: for every arm one value a seed, in one order; less is better.
        chosen: the arm in question.
        grid: the arms that it is compared with.

    Raises:
        ValueError: for an arm that there is not, or an empty grid.

    Example:
        >>> losses = {"ours": [1.2, 5.0], "low": [1.0, 5.2], "high": [3.0, 7.0]}
        >>> found = one_standard_error(losses, "ours", ["low", "high"])
        >>> found.best, round(found.error, 2), found.verdict
        ('low', 0.05, 'holds')

    References:
        Breiman, Friedman, Olshen, Stone. Classification and Regression Trees. 1984 (the rule).
        Loftus and Masson. Using confidence intervals in within-subject designs. 1994 (the error).
    """
    if not grid:
        raise ValueError("a grid needs at least one arm")
    for arm in (chosen, *grid):
        if arm not in losses:
            raise ValueError(unknown("arm", arm, losses))
    values = {arm: np.asarray(losses[arm], np.float64) for arm in (chosen, *grid)}
    best = min(grid, key=lambda arm: values[arm].mean())
    differences = contrast(losses, {best: 1, chosen: -1} if best != chosen else {best: 0})
    seeds = values[best].size
    # One seed shows nothing.
    own = values[best] - np.mean([values[arm] for arm in grid], axis=0)
    error = float(own.std(ddof=1) / math.sqrt(seeds)) if seeds > 1 else math.inf
    spread = float(max(values[arm].mean() for arm in grid) - values[best].mean())
    found: Literal["holds", "not shown", "contradicted"]
    found = "holds" if differences.mean() >= -error else "contradicted"
    if not spread > 3 * error:
        found = "not shown"
    return Choice(differences, error, spread, best, found)


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
