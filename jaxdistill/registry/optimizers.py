"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optax

from jaxdistill._errors import unknown
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, forwarding, named, without
from jaxdistill.settings import Fraction, NonNegative, Positive, keys
from jaxdistill.training import optimizer


def _adam(
    context: Context, *, b1: Fraction = 0.9, b2: Fraction = 0.999, eps: Positive = 1e-8
) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1, b2, eps)


def _sgd(
    context: Context, *, momentum: Fraction = 0.0, nesterov: bool = False
) -> optax.GradientTransformation:
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


def _lion(
    context: Context, *, b1: Fraction = 0.9, b2: Fraction = 0.99
) -> optax.GradientTransformation:
    return optax.scale_by_lion(b1, b2)


def _radam(
    context: Context,
    *,
    b1: Fraction = 0.9,
    b2: Fraction = 0.999,
    eps: Positive = 1e-8,
    threshold: NonNegative = 5.0,
) -> optax.GradientTransformation:
    return optax.scale_by_radam(b1, b2, eps, threshold=threshold)


def _by_path(direction: Entry) -> Entry:
    """An optimizer from what turns a gradient into a direction: rates, decay and clipping are the
    same for all."""

    @forwarding(optimizer.by_path)
    @forwarding(direction)
    def entry(context: Context, **rest: Any) -> optax.GradientTransformation:
        own = {key: rest.pop(key) for key in keys(direction) if key in rest}
        return optimizer.by_path(direction(context, **own), **rest)

    return entry


OPTIMIZERS: dict[str, Entry] = {
    "adamw": _by_path(_adam),
    "sgd": _by_path(_sgd),
    "lion": _by_path(_lion),
    "radam": _by_path(_radam),
}


def transformation(part: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """The optimizer of a stage; ``parts`` holds one for each part of what is learned, by name."""
    if named("optimizer", part) == "parts":
        own: dict[Any, Any] = {
            key: transformation(inner, steps) for key, inner in without(part, "name").items()
        }

        def label(params):
            for key in params:
                if key not in own:
                    raise ValueError(unknown("part in the optimizer 'parts'", key, own))
            return {key: key for key in params}

        return optax.partition(own, label)
    return call("optimizer", OPTIMIZERS, part, Context(steps=steps))
