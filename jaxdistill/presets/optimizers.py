"""Optimizers of configs, with the schedules that most of them have."""

from __future__ import annotations

from typing import Any


def warmup_cosine(peak: float, warmup: int, **settings: Any) -> dict[str, Any]:
    """A rate that rises linearly for ``warmup`` steps and falls as a cosine until the last one.

    Example:
        >>> warmup_cosine(1e-3, 50)
        {'schedule': 'warmup_cosine', 'peak': 0.001, 'warmup': 50}
    """
    return {"schedule": "warmup_cosine", "peak": peak, "warmup": warmup, **settings}


def adamw(peak: float, warmup: int, **settings: Any) -> dict[str, Any]:
    """AdamW with :func:`warmup_cosine`.

    Example:
        >>> adamw(1e-3, 50, weight_decay=0.01)["weight_decay"]
        0.01
    """
    return {"name": "adamw", **settings, "learning_rate": warmup_cosine(peak, warmup)}


def sgd(rate: float | dict[str, Any], momentum: float = 0.9, **settings: Any) -> dict[str, Any]:
    """Gradient descent with momentum, at one rate or a schedule.

    Example:
        >>> sgd(0.1, 0.5)
        {'name': 'sgd', 'momentum': 0.5, 'learning_rate': 0.1}
    """
    return {"name": "sgd", "momentum": momentum, **settings, "learning_rate": rate}
