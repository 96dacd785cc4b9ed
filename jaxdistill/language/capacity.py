"""The law of the capacity gap: the best teacher's size is proportional to the student's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class CapacityLaw(NamedTuple):
    """Which teacher is best for which student.

    Attributes:
        slope: the size of the best teacher over that of its student.
        best: ``[S]``, the best teacher's size for every student, between those measured.
        inside: bool ``[S]``, whether the best lies inside the ladder; where it does not, it may be
            beyond the smallest or largest teacher, and the student is left out of the slope.
    """

    slope: float
    best: np.ndarray
    inside: np.ndarray


def fit_capacity_law(students: ArrayLike, teachers: ArrayLike, losses: ArrayLike) -> CapacityLaw:
    """Fits ``best teacher = slope * student`` to a ladder of teachers and students.

    The best teacher of a student is the lowest point of the parabola, in the logarithm of the size,
    through the teacher with the least loss and its two neighbours; the slope is the geometric mean
    over students of best over own size.

    Args:
        students: sizes ``[S]``, any unit.
        teachers: sizes ``[T]`` in the same unit, all different, at least three.
        losses: ``[S, T]``, a student's loss on true text (not its divergence, which holds the
            teacher's entropy), of students that share start, data and steps.

    Returns:
        A :class:`CapacityLaw`; the slope is NaN where no student's best lies inside the ladder.

    Raises:
        ValueError: for shapes that do not fit, sizes that are not positive, losses not finite.

    References:
        Zhang et al. 2025, "Towards the law of capacity gap in distilling language models" (arXiv
        2311.07052), who find about 2.5.

    Example:
        >>> teachers = np.array([1.0, 2.0, 4.0, 8.0])
        >>> students = np.array([1.0, 2.0])
        >>> gap = np.log(teachers[None] / (2.5 * students[:, None]))
        >>> round(fit_capacity_law(students, teachers, gap**2).slope, 3)
        2.5
    """
    students, teachers, losses = (np.asarray(x, np.float64) for x in (students, teachers, losses))
    if losses.shape != (*students.shape, *teachers.shape) or losses.ndim != 2:
        raise ValueError(
            f"losses must be [students, teachers], {(*students.shape, *teachers.shape)}, "
            f"got {losses.shape}"
        )
    if teachers.size < 3 or np.unique(teachers).size != teachers.size:
        raise ValueError(f"a ladder has three teachers of unlike size or more, got {teachers}")
    if min(students.min(), teachers.min()) <= 0 or not np.isfinite(losses).all():
        raise ValueError("sizes must be positive and losses finite")
    order = np.argsort(teachers)
    size, losses = np.log(teachers[order]), losses[:, order]
    least = losses.argmin(1)
    inside = (least > 0) & (least < teachers.size - 1)
    best = np.exp(size[least])
    for row in np.flatnonzero(inside):
        near = slice(least[row] - 1, least[row] + 2)
        a, b, _ = np.polyfit(size[near], losses[row, near], 2)
        if a > 0:
            best[row] = np.exp(-b / (2 * a))
    ratios = np.log(best[inside] / students[inside])
    slope = float(np.exp(ratios.mean())) if inside.any() else float("nan")
    return CapacityLaw(slope, best, inside)
