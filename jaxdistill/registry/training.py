"""Nets and optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import optax

from jaxdistill import models
from jaxdistill._errors import unknown
from jaxdistill.distiller import Student
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import Net
from jaxdistill.registry import samplers
from jaxdistill.registry.condense import kernel_named
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, forwarding, module, named, stages_in, without
from jaxdistill.settings import Fraction, NonNegative, Positive, keys
from jaxdistill.theory import machines
from jaxdistill.training import optimizer


def _kernel_machine(context: Context, *, kernel: Mapping[str, Any]) -> Net:
    return machines.kernel_machine(kernel_named(kernel), context.classes or 1)


NETS: dict[str, Entry] = {
    "mlp": module(models.MLP),
    "convnet": module(models.ConvNet),
    "cifar_resnet": module(models.cifar_resnet),
    "imagenet_resnet": module(models.imagenet_resnet),
    "vit": module(models.ViT),
    "mae": module(models.MAE),
    "kernel_machine": _kernel_machine,
    **samplers.NETS,
    "decoder": module(models.Decoder),
    "text_encoder": module(models.TextEncoder),
}


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


def net_module(part: Mapping[str, Any], info: Mapping[str, Any]) -> Any:
    """The Linen module of a stage's net, or the net itself where it is none.

    What it must know of the data comes from there unless it is given.
    """
    return _made(part, info, {})


def net(
    part: Mapping[str, Any], info: Mapping[str, Any], nets: Mapping[str, Net] | None = None
) -> Student:
    """The net of a stage, or a function to it of the results that it shares weights with.

    Args:
        part: of the config.
        info: what is known of the data.
        nets: those of earlier stages.
    """
    made = _made(part, info, nets or {})
    return from_linen(made) if isinstance(made, nn.Module) else made


def shared(part: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The earlier stages that the net of a stage shares weights with, by the domains of its
    keywords; such an entry gives a function of their results to a net."""
    entry = NETS.get((part or {}).get("net", ""))
    return stages_in(entry, part) if entry is not None and part is not None else ()


def _made(part: Mapping[str, Any], info: Mapping[str, Any], nets: Mapping[str, Net]) -> Any:
    return call("net", NETS, part, Context(info=info, nets=nets), "net")


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
