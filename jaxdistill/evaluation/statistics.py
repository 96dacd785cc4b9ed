"""Statistics of claims: contrasts of arms over paired seeds, and what their intervals show.

Everything here says what other seeds would change, and nothing else: not another test split, nor
another target that all seeds share. What is not finite is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxdistill._errors import unknown

Verdict = Literal["holds", "smaller than asked", "not shown", "contradicted"]
# Of a confidence: (mean, low, high).
Interval = Callable[[float], tuple[float, float, float]]


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
        ValueError: for no arm, an unknown arm, or arms with different numbers of seeds.

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
    differences: Sequence[float] | np.ndarray,
    confidence: float = 0.95,
    resolution: float | None = None,
) -> tuple[float, float, float]:
    r"""Mean and interval of differences by Student's t: :math:`\bar d \pm t_{n-1} s / \sqrt n`.

    Equal differences do not make an interval without width. What is measured in steps, as an
    accuracy on 360 records, can be equal by chance, so :math:`s` is at least ``resolution``, one
    step. Where that is not known, equal differences are taken to be one step each, so that five of
    them show nothing and seven do, as the test of signs has it for six; differences that are all 0
    have an infinite interval then.

    Args:
        differences: one for every seed, from runs that share all but what is compared.
        confidence: how often the interval covers the true mean, if differences are normal.
        resolution: the smallest step of the differences, see :func:`resolution_of`.

    Returns:
        ``(mean, low, high)``. One difference shows nothing: the interval is infinite.

    Raises:
        ValueError: without differences, for one that is not finite, for a confidence that is not
            between 0 and 1, or a resolution that is not above 0.

    Example:
        >>> [round(x, 3) for x in paired_interval([1.0, 2.0, 3.0])]
        [2.0, -0.484, 4.484]
        >>> [round(x, 3) for x in paired_interval([0.25, 0.25, 0.25], resolution=0.01)]
        [0.25, 0.225, 0.275]

    References:
        Student. The Probable Error of a Mean. Biometrika 1908.
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 1 or not d.size:
        raise ValueError(f"differences must be one number a seed, got shape {d.shape}")
    mean = float(_finite(d, "differences").mean())
    half = float(_error(d, resolution) * _quantile(d.size, confidence))
    return mean, mean - half, mean + half


def grid_interval(
    losses: Mapping[str, Sequence[float]],
    chosen: str,
    grid: Sequence[str],
    confidence: float = 0.95,
    resolution: float | None = None,
) -> tuple[float, float, float]:
    r"""How far a chosen arm is ahead of the best of a grid, below 0 where the best is ahead.

    Which arm of the grid is the best is not known but estimated, and the estimated one is better
    by chance than it is. So the interval is that of :math:`\min_k (L_k - L_{chosen})` over all arms
    :math:`k`: its lower end is the least of the arms' lower ends, its upper end the least of their
    upper ends, which Bonferroni's rule moves up by the number of arms. It covers the true value at
    least as often as ``confidence``, however many arms are alike.

    Args:
        losses: for every arm one value a seed, in one order; less is better.
        chosen: the arm in question.
        grid: the arms that it is compared with; it may be one of them.
        confidence: as for :func:`paired_interval`.
        resolution: as for :func:`paired_interval`.

    Returns:
        ``(mean, low, high)``, the mean against the arm with the best mean.

    Raises:
        ValueError: for an unknown arm, a grid without another one, or what
            :func:`paired_interval` refuses.

    Example:
        >>> losses = {"ours": [1.2, 1.1, 1.3], "low": [1.0, 1.1, 1.2], "high": [3.0, 3.2, 3.1]}
        >>> [round(x, 2) for x in grid_interval(losses, "ours", ["low", "high"])]
        [-0.1, -0.35, 0.26]

    References:
        Hsu. Simultaneous confidence intervals for all distances from the "best". Annals of
        Statistics 1981.
    """
    others = [arm for arm in grid if arm != chosen]
    if not others:
        raise ValueError(f"a grid needs at least one arm besides {chosen!r}, got {list(grid)}")
    d = np.stack([contrast(losses, {arm: 1, chosen: -1}) for arm in others])
    means = _finite(d, "losses").mean(-1)
    error, seeds = _error(d, resolution), d.shape[-1]
    low = means - error * _quantile(seeds, confidence)
    high = means + error * _quantile(seeds, 1 - (1 - confidence) / len(others))
    return float(means.min()), float(low.min()), float(high.min())


class Answer(NamedTuple):
    """What an interval says to a claim.

    Attributes:
        mean: of the differences.
        low: the interval's lower end.
        high: its upper end.
        confidence: how often such an interval covers the true mean.
        verdict: see :func:`verdict`.
    """

    mean: float
    low: float
    high: float
    confidence: float
    verdict: Verdict


def holm(
    intervals: Mapping[str, Interval], margins: Mapping[str, float], confidence: float = 0.95
) -> dict[str, Answer]:
    r"""The answers to several contrasts of one claim, by Holm's procedure.

    All intervals are first taken at :math:`1 - \alpha / m`. The contrasts that hold there, or are
    contradicted, are answered; the :math:`m'` others are taken again at :math:`1 - \alpha / m'`,
    until no more are answered. Each verdict is that of its own interval, and with no
    effect at all any of them is «holds» or «contradicted» by chance in at most :math:`\alpha` of
    all claims.

    Args:
        intervals: for every contrast ``confidence -> (mean, low, high)``.
        margins: what every contrast must be above.
        confidence: :math:`1 - \alpha`, of all together.

    Example:
        >>> from functools import partial
        >>> differences = {"large": [4.0, 5.0, 6.0, 5.0], "small": [1.0, 2.0, 3.0, 1.0]}
        >>> found = holm(
        ...     {name: partial(paired_interval, d) for name, d in differences.items()},
        ...     {"large": 0.0, "small": 0.0},
        ... )
        >>> [(a.verdict, round(a.confidence, 3)) for a in found.values()]
        [('holds', 0.975), ('holds', 0.95)]

    References:
        Holm. A simple sequentially rejective multiple test procedure. Scandinavian Journal of
        Statistics 1979.
    """
    answered: dict[str, Answer] = {}
    left = list(intervals)
    while left:
        level = 1 - (1 - confidence) / len(left)
        found = {}
        for name in left:
            mean, low, high = intervals[name](level)
            found[name] = Answer(mean, low, high, level, verdict(low, high, margins[name]))
        final = {k: a for k, a in found.items() if a.verdict in ("holds", "contradicted")}
        answered |= final or found
        left = [name for name in left if name not in answered]
    return {name: answered[name] for name in intervals}


def verdict(low: float, high: float, margin: float = 0.0) -> Verdict:
    """What an interval says to the claim that a contrast is larger than a margin.

    - ``"holds"``: the interval lies above the margin.
    - ``"smaller than asked"``: above zero, but below the margin or across it.
    - ``"contradicted"``: below zero. Where less than zero was asked (a margin of -0.01: at most a
      point is lost) it lies below that as well.
    - ``"not shown"``: anything else; the interval contains zero, or such a margin.

    Raises:
        ValueError: for an interval that is none, or numbers that are not.

    Example:
        >>> verdict(0.01, 0.03), verdict(-0.01, 0.03), verdict(-0.03, -0.01)
        ('holds', 'not shown', 'contradicted')
        >>> verdict(0.01, 0.03, margin=0.02), verdict(0.01, 0.03, margin=0.2)
        ('smaller than asked', 'smaller than asked')
        >>> verdict(-0.03, -0.01, margin=-0.02), verdict(-0.03, -0.01, margin=-0.05)
        ('not shown', 'holds')
    """
    if not (low <= high and math.isfinite(margin)):
        raise ValueError(f"no interval and margin: [{low}, {high}] and {margin}")
    if low > margin:
        return "holds"
    if low > 0:
        return "smaller than asked"
    return "contradicted" if high < min(margin, 0.0) else "not shown"


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim: the worst of those on its contrasts, of which there is one or more.

    Example:
        >>> overall(["holds", "not shown", "smaller than asked"])
        'not shown'
    """
    order: tuple[Verdict, ...] = ("contradicted", "not shown", "smaller than asked", "holds")
    return order[min(map(order.index, verdicts))]


def resolution_of(values: Sequence[float] | np.ndarray, records: int | None) -> float | None:
    """The smallest step of a metric, as its values tell it.

    Args:
        values: of all arms and seeds.
        records: how many records it is measured on, where that is known.

    Returns:
        1 for whole numbers above 1, ``1 / records`` for shares of the records. For anything else
        what float32 can tell apart, or None where the number of records is not known either.

    Example:
        >>> resolution_of([0.25, 0.5], 8), resolution_of([3, 17], 8), resolution_of([0.3], None)
        (0.125, 1.0, None)
    """
    found = np.abs(_finite(np.asarray(values, np.float64), "values"))
    if found.max(initial=0) > 1 and _whole(found):
        return 1.0
    if records is None:
        return None
    if _whole(found * records) and found.max(initial=0) <= 1:
        return 1 / records
    return float(np.finfo(np.float32).eps * found.max())


def power(seeds: int, effect: float, confidence: float = 0.95) -> float:
    """How often an effect is shown: how often its interval lies above zero.

    Args:
        seeds: how many, two or more.
        effect: the true mean of the differences, in standard deviations of them.
        confidence: of the interval.

    Example:
        >>> [round(power(seeds, 2.0), 2) for seeds in (3, 5, 7)]
        [0.47, 0.91, 0.99]
    """
    from scipy.special import nctdtr

    if seeds < 2:
        return 0.0
    return float(1 - nctdtr(seeds - 1, effect * math.sqrt(seeds), _quantile(seeds, confidence)))


def _finite(x: np.ndarray, what: str) -> np.ndarray:
    if not np.isfinite(x).all():
        raise ValueError(f"{what} must be finite, got {x[~np.isfinite(x)].tolist()[:3]} among them")
    return x


def _whole(x: np.ndarray) -> bool:
    return bool((np.abs(x - np.round(x)) <= 1e-3).all())


def _error(d: np.ndarray, resolution: float | None) -> np.ndarray:
    """The standard error of means over the last axis; of one value it is infinite."""
    seeds = d.shape[-1]
    if resolution is not None and not 0 < resolution < math.inf:
        raise ValueError(f"resolution must be above 0, got {resolution}")
    if seeds == 1:
        return np.full(d.shape[:-1], math.inf)
    spread = d.std(-1, ddof=1)
    if resolution is not None:
        return np.maximum(spread, resolution) / math.sqrt(seeds)
    size = np.abs(d).max(-1)
    # What float32 leaves of equal differences is no spread.
    equal = np.ptp(d, -1) <= 1e-6 * size
    spread = np.where(equal, np.where(size > 0, size, math.inf), spread)
    return spread / math.sqrt(seeds)


def _quantile(seeds: int, confidence: float) -> float:
    """Student's t for both sides together; 1 for a single seed, whose error is infinite."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    from scipy.special import stdtrit

    return float(stdtrit(seeds - 1, (1 + confidence) / 2)) if seeds > 1 else 1.0
