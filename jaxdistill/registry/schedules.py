"""Hyper-parameters that change with the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optax

from jaxdistill import settings, targets
from jaxdistill.registry.context import Context
from jaxdistill.settings import Count, Finite, Natural, Positive


def _warmup_cosine(
    context: Context, *, peak: Positive, warmup: Natural, end: settings.NonNegative = 0.0
) -> optax.Schedule:
    steps = max(context.steps, 1)
    _within("warmup_cosine", "warmup", warmup, context.steps)
    if not warmup or not context.steps:
        return optax.cosine_decay_schedule(peak, steps, end / peak)
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, end)


def _step_decay(
    context: Context, *, peak: Positive, milestones: Sequence[Count], factor: Positive = 0.1
) -> optax.Schedule:
    for milestone in milestones:
        _within("step_decay", "milestones", milestone, context.steps)
    return optax.piecewise_constant_schedule(peak, dict.fromkeys(milestones, factor))


def _linear(context: Context, *, start: Finite, end: Finite, begin: Natural = 0) -> optax.Schedule:
    _within("linear", "begin", begin, context.steps)
    return optax.linear_schedule(start, end, max(context.steps - begin, 1), begin)


def _cosine(context: Context, *, start: Finite, end: Finite) -> optax.Schedule:
    half = optax.cosine_decay_schedule(1.0, max(context.steps, 1))
    return lambda step: end + (start - end) * half(step)


def _exponential(
    context: Context, *, start: Finite, rate: Positive, every: Count = 1
) -> optax.Schedule:
    return optax.exponential_decay(start, every, rate)


def _snapshot_every(context: Context, *, every: Count) -> Any:
    return targets.snapshot_every(every)


SCHEDULES: dict[str, Callable[..., Any]] = {
    "warmup_cosine": _warmup_cosine,
    "step_decay": _step_decay,
    "linear": _linear,
    "cosine": _cosine,
    "exponential": _exponential,
    "snapshot_every": _snapshot_every,
}


def _within(name: str, key: str, value: int, steps: int) -> None:
    """Refuses what would come after the last step; a stage of no steps has no schedule."""
    if value and steps and value >= steps:
        raise ValueError(
            f"{key!r} of schedule {name!r} is {value}: it must be below the {steps} steps of the "
            "stage"
        )
