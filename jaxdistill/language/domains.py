"""DDK: domains are drawn more often the farther the student is behind its teacher in them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill.evaluation.batches import Evaluator, frozen_entry
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.language.evaluation import next_token
from jaxdistill.net import Net
from jaxdistill.settings import Count, Share, checked


def updated_weights(
    weights: np.ndarray, student: np.ndarray, teacher: np.ndarray, smoothing: float = 0.5
) -> np.ndarray:
    r"""One update of the domains' weights.

    .. math:: \psi_i = r_i \exp(\ell^S_i / \ell^T_i), \qquad
        r'_i = a \frac{\psi_i}{\sum_j \psi_j} + \frac{1 - a}{N}

    Args:
        weights: ``r`` ``[N]``, positive, summing to 1.
        student: its perplexities :math:`\ell^S` ``[N]``.
        teacher: its perplexities.
        smoothing: ``a`` in [0, 1]; 1 smooths nothing.

    Returns:
        ``[N]``, summing to 1, each at least ``(1 - a) / N``; taken in logarithms, so that the
        ratios of an untrained student do not overflow.

    Raises:
        ValueError: for a smoothing outside [0, 1], and perplexities that are not positive.

    References:
        Liu et al. 2024, "DDK: distilling domain knowledge for efficient large language models"
        (arXiv 2407.16154), equations 2 to 4.

    Example:
        >>> updated_weights(np.ones(2) / 2, np.array([2e3, 1.0]), np.ones(2)).tolist()
        [0.75, 0.25]
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must be in [0, 1], got {smoothing}")
    if min(np.min(student), np.min(teacher)) <= 0:
        raise ValueError("perplexities must be positive")
    logits = np.log(weights) + student / teacher
    share = np.exp(logits - logits.max())
    return smoothing * share / share.sum() + (1 - smoothing) / len(share)


@checked
def domain_weights(
    student: Net,
    teacher: Net,
    against: str,
    groups: Sequence[str],
    data: Iterable[Any],
    *,
    smoothing: Share = 0.5,
    batches: Count | None = None,
) -> Callable[[Any, Mapping[str, Any], Any], dict[str, Any]]:
    """The host's work between steps: perplexities of both nets by domain, and new weights.

    The first block of steps draws all domains alike; the teacher is measured once.

    Args:
        student: the net that learns.
        teacher: its teacher.
        against: the teacher's name in the frozen variables.
        groups: the domains, as ``info["groups"]`` names them.
        data: validation batches, with ``group``.
        smoothing: see :func:`updated_weights`.
        batches: only so many of them, the first.

    Returns:
        ``(result, frozen, plan) -> plan``, for ``Stage.between``: JSON data with ``weights``, the
        share of each domain in the next steps; ``ratio``, the recursion's own weights; ``teacher``;
        and ``metrics``, the weights as they are logged.
    """
    ours = next_token(student, groups, batches=batches)
    theirs = next_token(teacher, groups, batches=batches)

    def perplexities(losses: Mapping[str, float]) -> np.ndarray:
        return np.exp([losses[f"{name}_loss"] for name in groups])

    def between(result: Any, frozen: Mapping[str, Any], plan: Any) -> dict[str, Any]:
        first = plan is None
        if first:
            of_teacher = perplexities(theirs(frozen_entry(frozen, against), frozen, data))
        else:
            of_teacher = np.array(plan["teacher"])
        of_student = perplexities(ours(result, frozen, data))
        even = np.full(len(groups), 1 / len(groups))
        before = even if first else np.array(plan["ratio"])
        after = updated_weights(before, of_student, of_teacher, 1.0 if first else smoothing)
        used = even if first else after
        return {
            "teacher": of_teacher.tolist(),
            "ratio": after.tolist(),
            "weights": dict(zip(groups, used.tolist(), strict=True)),
            "metrics": {f"weight_{n}": w for n, w in zip(groups, used.tolist(), strict=True)},
        }

    return between


@checked
def domain_gap(
    student: Net,
    teacher: Net,
    against: str,
    groups: Sequence[str],
    *,
    batches: Count | None = None,
) -> Evaluator:
    """By how much the student's perplexity exceeds its teacher's, by domain and at the worst.

    Returns:
        An evaluator with ``<group>_ratio`` for every domain, ``largest_ratio`` and ``mean_ratio``.
    """
    nets = [next_token(net, groups, batches=batches) for net in (student, teacher)]

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        data = list(itertools.islice(data, batches))
        ours, theirs = (
            measure(variables, frozen, data)
            for measure, variables in zip(
                nets, (result, frozen_entry(frozen, against)), strict=True
            )
        )
        ratios = {
            name: float(np.exp(ours[f"{name}_loss"] - theirs[f"{name}_loss"])) for name in groups
        }
        return {
            **{f"{name}_ratio": value for name, value in ratios.items()},
            "largest_ratio": max(ratios.values()),
            "mean_ratio": float(np.mean(list(ratios.values()))),
        }

    own = (f"{name}_ratio" for name in groups)
    return measuring((*own, "largest_ratio", "mean_ratio"), evaluator)
