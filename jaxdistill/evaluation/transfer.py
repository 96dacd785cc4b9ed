"""Which of many trained nets is near a task: scores from a few labelled records of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from jaxdistill.settings import NonNegative


def parc(features: np.ndarray, labels: np.ndarray) -> float:
    r"""How well the distances between a net's features follow those between labels.

    Features are standardised column by column. Then

    .. math:: 100 \, \rho\bigl(\mathrm{triu}(1 - \mathrm{corr}(F)),\,
        \mathrm{triu}(1 - \mathrm{corr}(Y))\bigr)

    with Pearson's correlations between records, one-hot labels :math:`Y`, and Spearman's
    :math:`\rho` (equal values share their mean rank) over the pairs of records.

    Args:
        features: ``[n, D]``, of ``n`` labelled records; columns that are constant are left out.
        labels: integers ``[n]``.

    Returns:
        A number in -100..100; 0 where features or labels tell no record from another.

    Raises:
        ValueError: for shapes that do not fit, fewer than 3 records, or values that are not finite.

    References:
        Bolya et al., Scalable diverse model selection for accessible transfer learning, 2021,
        https://arxiv.org/abs/2111.06977

    Example:
        >>> labels = np.array([0, 0, 1, 1])
        >>> round(parc(np.eye(2)[labels] + 0.0, labels), 1)
        100.0
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"features must be [n, D] and labels [n], got {features.shape} and {labels.shape}"
        )
    if len(features) < 3:
        raise ValueError(f"at least 3 records are compared pair by pair, got {len(features)}")
    if not np.isfinite(features).all():
        raise ValueError("features are not finite")
    spread = features.std(0)
    if not (spread > 0).any():
        return 0.0
    standard = (features - features.mean(0))[:, spread > 0] / spread[spread > 0]
    classes = np.unique(labels)
    one_hot = (labels[:, None] == classes).astype(np.float64)
    pairs = np.triu_indices(len(features), 1)
    ranks = [_ranks(1 - _correlations(rows)[pairs]) for rows in (standard, one_hot)]
    if min(rank.std() for rank in ranks) == 0:
        return 0.0
    return 100.0 * float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def source_weights(
    scores: Mapping[str, float], power: NonNegative | Literal["nearest"] = 12.0
) -> dict[str, float]:
    r"""What each source is worth: :math:`w_s = a_s^p / \sum_k a_k^p`.

    :math:`a_s` is the score, at least 0, divided by the largest.

    Args:
        scores: of every source.
        power: 0 weighs all alike, a large one the best alone; ``"nearest"`` is that limit.

    Returns:
        Weights that sum to 1; equal ones where no score is above 0.

    Raises:
        ValueError: for no source, a negative power, or scores that are not finite.

    References:
        Borup et al., Distilling from similar tasks for transfer learning on a budget, 2023,
        https://arxiv.org/abs/2304.12314

    Example:
        >>> source_weights({"near": 20.0, "far": 10.0, "wrong": -5.0}, power=1)
        {'near': 0.6666666666666666, 'far': 0.3333333333333333, 'wrong': 0.0}
        >>> source_weights({"near": 20.0, "far": 10.0}, "nearest")
        {'near': 1.0, 'far': 0.0}
    """
    if not scores:
        raise ValueError("there is no source to weigh")
    if power != "nearest" and not power >= 0:
        raise ValueError(f"power must be at least 0 or 'nearest', got {power!r}")
    if not all(np.isfinite(score) for score in scores.values()):
        raise ValueError(f"scores are not finite: {dict(scores)}")
    best = max(scores.values())
    if power == "nearest":
        chosen = max(scores, key=lambda name: scores[name])
        return {name: float(name == chosen) for name in scores}
    if best <= 0:
        return dict.fromkeys(scores, 1 / len(scores))
    # A power of 0 weighs even a source without any likeness.
    powered = {name: (max(score, 0.0) / best) ** power for name, score in scores.items()}
    total = sum(powered.values())
    return {name: value / total for name, value in powered.items()}


def _correlations(rows: np.ndarray) -> np.ndarray:
    """Pearson's between rows ``[n, n]``; 0 with a row that is constant."""
    centred = rows - rows.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 1e-12)
    # Rounded, so that pairs of equal distance are ties whatever the order of a sum.
    return np.round(unit @ unit.T, 12)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, equal values sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
