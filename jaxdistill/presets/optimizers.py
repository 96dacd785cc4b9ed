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


def layer_decay(depth: int, decay: float) -> tuple[tuple[str, float], ...]:
    """``rates`` of a vision transformer by which the rate falls from block to block, the first
    learning least: the head and a distillation token at the whole rate, block i of ``depth`` (not
    scanned) at ``decay^(depth - i)`` of it, patches and the class token at ``decay^(depth + 1)``.

    Example:
        >>> [round(rate, 3) for _, rate in layer_decay(2, 0.5)]
        [0.25, 0.5, 1.0, 0.125]

    References:
        Clark et al., ELECTRA, ICLR 2020; Bao et al., BEiT, ICLR 2022.
    """
    blocks = ((rf"^net/encoder/block_{i}/", decay ** (depth - i)) for i in range(depth))
    whole = (r"^net/encoder/(norm/|distillation_token)", 1.0)
    return (*blocks, whole, ("^net/encoder/", decay ** (depth + 1)))


def sgd(rate: float | dict[str, Any], momentum: float = 0.9, **settings: Any) -> dict[str, Any]:
    """Gradient descent with momentum, at one rate or a schedule.

    Example:
        >>> sgd(0.1, 0.5)
        {'name': 'sgd', 'momentum': 0.5, 'learning_rate': 0.1}
    """
    return {"name": "sgd", "momentum": momentum, **settings, "learning_rate": rate}
