"""Evaluators that say which metrics they give, so that a claim about another is refused early, and
whether they can be traced before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def measuring(names: Iterable[str], evaluate: Callable[..., Any], *, sweeps: bool = False) -> Any:
    """An evaluator with the names of its metrics as ``evaluate.metrics``.

    Args:
        names: of all that ``evaluate`` gives, less the set's name in front.
        evaluate: ``(result, frozen, data) -> {name: value}``.
        sweeps: whether it begins with a :func:`~jaxdistill.evaluation.batches.sweep`, so that
            :func:`~jaxdistill.evaluation.batches.trace` can say beforehand what does not fit.

    Returns:
        The same function, which now says what it measures.

    Example:
        >>> evaluator = measuring(["accuracy"], lambda result, frozen, data: {"accuracy": 0.5})
        >>> evaluator.metrics
        ('accuracy',)
    """
    evaluate.metrics = tuple(names)  # type: ignore[attr-defined]
    evaluate.sweeps = sweeps  # type: ignore[attr-defined]
    return evaluate
