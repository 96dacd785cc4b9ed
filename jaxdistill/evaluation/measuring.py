"""Evaluators that say which metrics they give, so that a claim about another is refused early."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def measuring(names: Iterable[str], evaluate: Callable[..., Any]) -> Any:
    """An evaluator with the names of its metrics as ``evaluate.metrics``.

    Args:
        names: of all that ``evaluate`` gives, less the set's name in front.
        evaluate: ``(result, frozen, data) -> {name: value}``.

    Returns:
        The same function, which now says what it measures.

    Example:
        >>> evaluator = measuring(["accuracy"], lambda result, frozen, data: {"accuracy": 0.5})
        >>> evaluator.metrics
        ('accuracy',)
    """
    evaluate.metrics = tuple(names)  # type: ignore[attr-defined]
    return evaluate
