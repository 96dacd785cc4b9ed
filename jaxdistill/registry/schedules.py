"""Hyper-parameters that change with the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax

from jaxdistill import targets
from jaxdistill.registry._names import call, without


def _warmup_cosine(peak: float, warmup: int, steps: int, end: float = 0.0) -> optax.Schedule:
    steps = max(steps, 1)
    # Two steps of a smoke run are fewer than any warm-up.
    warmup = min(warmup, steps // 2)
    if not warmup:
        return optax.cosine_decay_schedule(peak, steps, end / peak)
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, end)


def _step_decay(peak: float, milestones: Sequence[int], factor: float = 0.1) -> optax.Schedule:
    return optax.piecewise_constant_schedule(peak, dict.fromkeys(milestones, factor))


def _linear(start: float, end: float, steps: int, begin: int = 0) -> optax.Schedule:
    return optax.linear_schedule(start, end, max(steps - begin, 1), begin)


def _cosine(start: float, end: float, steps: int) -> optax.Schedule:
    half = optax.cosine_decay_schedule(1.0, max(steps, 1))
    return lambda step: end + (start - end) * half(step)


def _exponential(start: float, rate: float, every: int = 1) -> optax.Schedule:
    return optax.exponential_decay(start, every, rate)


SCHEDULES: dict[str, Callable[..., Any]] = {
    "warmup_cosine": _warmup_cosine,
    "step_decay": _step_decay,
    "linear": _linear,
    "cosine": _cosine,
    "exponential": _exponential,
    "snapshot_every": lambda every: targets.snapshot_every(every),
}


def schedule(value: Any, steps: int) -> Any:
    """A number as it is; a dict that names a ``schedule`` as a function of the step."""
    if isinstance(value, Mapping) and "schedule" in value:
        return call(
            "schedule", SCHEDULES, value["schedule"], without(value, "schedule"), steps=steps
        )
    return value
